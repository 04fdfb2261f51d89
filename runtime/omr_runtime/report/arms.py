"""Runs that differ in their seed alone to one accuracy with an interval over questions and seeds, and two of them to a gain.

An interval adds two variances: that of the questions, taken as the mean over seeds because all seeds answer the same ones, and
that of the seeds' accuracies divided by how many there are (normal approximation; with few seeds it is rough). For a gain both are
variances of differences: question by question, and seed by seed where both sides ran under as many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance
from typing import Any

from omr_runtime import lineage
from omr_runtime.report.comparison import scores_of
from omr_runtime.report.ran import Ran
from omr_runtime.verify.accuracy import Z
from omr_runtime.verify.paired import Scores, paired


@dataclass(frozen=True, slots=True)
class Outcome:
    """``accuracy`` with the ends of its interval, in 0 .. 1, over ``num_questions`` of ``num_seeds`` runs."""

    accuracy: float
    lo: float
    hi: float
    num_questions: int
    num_seeds: int
    tokens: float | None


@dataclass(frozen=True, slots=True)
class Gain:
    """B's accuracy minus A's; ``is_paired`` where both answered the same questions."""

    difference: float
    lo: float
    hi: float
    num_questions: int
    is_paired: bool


def outcome(runs: Sequence[Ran], stage: str) -> Outcome | None:
    """What an eval measured in runs of one recipe; None where none of them has finished it."""
    found = [metrics for run in runs if (metrics := _metrics(run, stage))]
    if not found:
        return None
    accuracies = [metrics["accuracy"] for metrics in found]
    mean = fmean(accuracies)
    spread = _variance_of_questions(found) + _variance_of_seeds(accuracies)
    half = Z * sqrt(spread)
    one = len(found) == 1
    lo = found[0]["accuracy_lo"] if one else max(0.0, mean - half)
    hi = found[0]["accuracy_hi"] if one else min(1.0, mean + half)
    tokens = [m["mean_response_tokens"] for m in found if m.get("mean_response_tokens") is not None]
    number = int(found[0].get("num_questions", 0))
    return Outcome(mean, lo, hi, number, len(found), fmean(tokens) if tokens else None)


def gain(a: Sequence[Ran], b: Sequence[Ran], stage_a: str, stage_b: str) -> Gain | None:
    """B against A: question by question where both answered the same ones. RunError where there is no lineage."""
    sides = [
        [m["accuracy"] for run in runs if (m := _metrics(run, name))]
        for runs, name in ((a, stage_a), (b, stage_b))
    ]
    if not all(sides):
        return None
    difference = fmean(sides[1]) - fmean(sides[0])
    of_seeds = _variance_of_gains(*sides)
    scores = [_scores(runs, name) for runs, name in ((a, stage_a), (b, stage_b))]
    same = paired(*scores) if scores[0].keys() == scores[1].keys() else None
    if same is not None and abs(same.difference - difference) < 1e-6:
        lower = sqrt((same.difference - same.lo) ** 2 + Z**2 * of_seeds)
        upper = sqrt((same.hi - same.difference) ** 2 + Z**2 * of_seeds)
        return Gain(difference, difference - lower, difference + upper, same.num_items, True)
    found = [outcome(a, stage_a), outcome(b, stage_b)]
    half = sqrt(sum(((one.hi - one.lo) / 2) ** 2 for one in found if one is not None))
    number = min(one.num_questions for one in found if one is not None)
    return Gain(difference, difference - half, difference + half, number, False)


def _metrics(run: Ran, stage: str) -> dict[str, Any]:
    """The figures of a finished eval; empty where it is not finished."""
    found: dict[str, Any] = run.entries.get(stage, {}).get("metrics", {})
    return found if run.is_done(stage) and "accuracy" in found else {}


def _variance_of_questions(found: Sequence[dict[str, Any]]) -> float:
    return fmean(((m["accuracy_hi"] - m["accuracy_lo"]) / (2 * Z)) ** 2 for m in found)


def _variance_of_seeds(accuracies: Sequence[float]) -> float:
    return variance(accuracies) / len(accuracies) if len(accuracies) > 1 else 0.0


def _variance_of_gains(a: Sequence[float], b: Sequence[float]) -> float:
    """Of the mean gain over seeds. What a seed did to both sides, such as a good or a bad start, is no part of it."""
    if len(a) == len(b):
        return _variance_of_seeds([y - x for x, y in zip(a, b, strict=True)])
    return _variance_of_seeds(a) + _variance_of_seeds(b)


def _scores(runs: Sequence[Ran], stage: str) -> Scores:
    """The answers of all seeds by question."""
    merged: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if _metrics(run, stage):
            with lineage.read(run.state.lineage) as reader:
                for item, values in scores_of(reader, run.plan.stage(stage)).items():
                    merged[item] += values
    return by_row(merged)


def by_row(scores: Scores) -> Scores:
    """A question that a set has several times counts as often, as it does in the accuracy: its answers are dealt out.

    >>> by_row({"once": [0, 1], "twice": [1, 0, 1, 0]})
    {'once 0': [0, 1], 'twice 0': [1, 1], 'twice 1': [0, 0]}
    """
    each = min(map(len, scores.values()), default=1)
    return {
        f"{item} {row}": values[row :: len(values) // each]
        for item, values in scores.items()
        for row in range(len(values) // each)
    }
