"""What a stage must come out as: limits on its numbers, which a plan compares with estimates and a run with counts."""

from __future__ import annotations

from typing import Literal, TypeAlias

from omrlang.types.setting import Frozen

Metric: TypeAlias = Literal[
    "rows", "kept", "share", "tokens", "steps", "epochs", "seconds", "gpu_hours", "usd", "accuracy"
]

METRIC_UNITS: dict[Metric, str | None] = {
    "rows": "rows",
    "kept": None,
    "share": None,
    "tokens": "tokens",
    "steps": "steps",
    "epochs": "epochs",
    "seconds": "s",
    "gpu_hours": None,
    "usd": "usd",
    "accuracy": None,
}
"""The unit of each metric's limits; none is a plain number or a percentage."""

METRIC_DOCS: dict[Metric, str] = {
    "rows": "rows that come out",
    "kept": "share of the rows that went in",
    "share": "share of one part in the rows of a mix: `share(PART)`",
    "tokens": "tokens that are generated or trained on",
    "steps": "optimiser steps",
    "epochs": "passes over the rows",
    "seconds": "duration of the stage",
    "gpu_hours": "hours of all its GPUs together; a plan alone knows them",
    "usd": "dollars; a plan alone knows them",
    "accuracy": "of all its benchmarks together; a run alone knows it",
}

COUNTED_BY: dict[Metric, tuple[str, ...]] = {
    "share": ("mix",),
    "steps": ("sft", "rl"),
    "epochs": ("sft", "rl"),
    "accuracy": ("eval",),
}
"""The kinds of stage that have a number which not all have."""


class Limit(Frozen):
    """``share(PART)`` has the part's name in ``of``. An open end is None; both ends are inclusive unless
    ``strict``."""

    metric: Metric
    of: str | None = None
    lo: float | None = None
    hi: float | None = None
    strict: bool = False
    text: str

    def holds(self, value: float) -> bool:
        """Whether a number lies within."""
        if self.strict:
            return (self.lo is None or value > self.lo) and (self.hi is None or value < self.hi)
        return (self.lo is None or value >= self.lo) and (self.hi is None or value <= self.hi)


class Expect(Frozen):
    """All limits must hold."""

    text: str
    limits: tuple[Limit, ...]
