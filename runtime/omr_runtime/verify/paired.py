"""The same items answered by two models to the difference of their accuracies with a 95% interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from omr_runtime.verify.accuracy import Z

Scores = Mapping[str, Sequence[float]]
"""By item, such as the content of a question: the scores of its answers, in 0 .. 1."""


@dataclass(frozen=True, slots=True)
class Paired:
    """``difference`` is B minus A in 0 .. 1 with the ends of its interval; ``wins`` are items that B did better."""

    num_items: int
    difference: float
    lo: float
    hi: float
    wins: int
    losses: int


def paired(a: Scores, b: Scores) -> Paired | None:
    """Compare on the items that both answered; an item's score is the mean of its answers. None without common items.

    With one answer that is right or wrong for each item the interval is Bonett and Price's (2012, adjusted Wald), which
    does not vanish where the two always agree; else it is that of the mean of the items' differences, or Bonett and
    Price's where those do not spread.
    """
    items = sorted(a.keys() & b.keys())
    if not items:
        return None
    gaps = [fmean(b[item]) - fmean(a[item]) for item in items]
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    spread = stdev(gaps) if len(gaps) > 1 else 0.0
    if spread == 0.0 or all(gap in (-1.0, 0.0, 1.0) for gap in gaps):
        middle, half = _bonett_price(wins, losses, len(items))
    else:
        middle, half = fmean(gaps), Z * spread / math.sqrt(len(gaps))
    lo, hi = max(-1.0, middle - half), min(1.0, middle + half)
    return Paired(len(items), fmean(gaps), lo, hi, wins, losses)


def _bonett_price(wins: int, losses: int, n: int) -> tuple[float, float]:
    """Middle and half width of the interval: one item is added to each way in which the two may differ."""
    more, less = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    return more - less, Z * math.sqrt((more + less - (more - less) ** 2) / (n + 2))
