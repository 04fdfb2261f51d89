"""A span of values to an axis: round ticks, their texts, and where a value stands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps ``lo .. hi`` to ``start .. end`` in units of the picture; an upright axis has ``start`` below ``end``."""

    lo: float
    hi: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        return self.start + (value - self.lo) / (self.hi - self.lo) * (self.end - self.start)


def axis(values: Iterable[float], start: float, end: float, num_ticks: int = 4) -> Axis:
    """An axis with round ends that holds all values; one value alone stands in its middle.

    >>> axis([0.0, 0.63], 0, 100).ticks
    (0.0, 0.2, 0.4, 0.6, 0.8)
    """
    known = [value for value in values if math.isfinite(value)] or [0.0]
    lo, hi = min(known), max(known)
    if lo == hi:
        lo, hi = (lo - abs(lo) / 2, hi + abs(hi) / 2) if lo else (0.0, 1.0)
    step = _round_step((hi - lo) / num_ticks)
    first, last = math.floor(lo / step + 1e-9), math.ceil(hi / step - 1e-9)
    ticks = tuple(round(number * step, 12) for number in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def tight_axis(lo: float, hi: float, start: float, end: float) -> Axis:
    """An axis that ends where the values do; ticks are the round numbers between.

    >>> tight_axis(1, 213, 0, 100).ticks
    (100.0, 200.0)
    """
    found = axis([lo, hi], start, end)
    inside = tuple(tick for tick in found.ticks if lo <= tick <= hi)
    return Axis(lo, max(hi, lo + 1), start, end, inside)


def _round_step(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten.

    >>> _round_step(0.16), _round_step(3.1)
    (0.2, 5.0)
    """
    power = 10.0 ** math.floor(math.log10(step))
    return next(part * power for part in (1, 2, 5, 10) if part * power >= step * (1 - 1e-9))


def number_text(value: float) -> str:
    """Short, as an axis writes it.

    >>> [number_text(v) for v in (0.0, 0.2, 0.00002, 1500, 2_500_000, 63.7)]
    ['0', '0.2', '2e-05', '1,500', '2.5M', '63.7']
    """
    size = abs(value)
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            scale = 1e3 if letter == "k" else limit
            return f"{value / scale:.3g}{letter}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.3g}"
