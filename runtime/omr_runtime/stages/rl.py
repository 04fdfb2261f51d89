"""Questions and a model to a model that answers them better."""

from __future__ import annotations

from omr_runtime.work import Work


def run(work: Work) -> None:
    """Train, on each process that the launch started."""
    from omr_runtime.train.rl import train

    train(work)
