"""Rows with responses and a model to a fine-tuned model."""

from __future__ import annotations

from omr_runtime.work import Work


def run(work: Work) -> None:
    """Train, on each process that the launch started."""
    from omr_runtime.train.sft import train

    train(work)
