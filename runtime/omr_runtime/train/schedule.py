"""A learning-rate setting and a step to the learning rate of that step. A pure function: nothing to save or restore."""

from __future__ import annotations

import math
from typing import assert_never

from omrlang.types import Amount, Constant, Cosine, Linear, LrSchedule


def warmup_steps(warmup: Amount, num_steps: int) -> int:
    """Steps of linear warm-up, from a number of steps or a fraction of the run (rounded up)."""
    if warmup.unit == "fraction":
        return math.ceil(warmup.value * num_steps)
    return int(warmup.value)


def learning_rate(schedule: LrSchedule, step: int, num_steps: int) -> float:
    """The rate of optimiser step ``step``, counted from 0, of ``num_steps``.

    >>> learning_rate(Cosine(peak=1.0, warmup=Amount(value=2, unit="steps")), 0, 12)
    0.5
    """
    warm = warmup_steps(schedule.warmup, num_steps)
    if step < warm:
        return schedule.peak * (step + 1) / warm
    done = (step - warm) / max(1, num_steps - warm)
    match schedule:
        case Constant():
            return schedule.peak
        case Cosine():
            part = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
            return schedule.peak * (schedule.floor + (1 - schedule.floor) * part)
        case Linear():
            return schedule.peak * max(0.0, 1 - done)
        case _:
            assert_never(schedule)
