"""Scored answers to accuracy with a 95% interval, mean response tokens and the share in the asked format."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist, fmean

Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Answer:
    """``question`` is the id of the row that was asked: its answers are one cluster. ``score`` in 0 .. 1."""

    question: str
    score: float
    num_tokens: int
    format_ok: bool


def measure(answers: Iterable[Answer]) -> dict[str, float]:
    """The figures of one benchmark, or of all. Empty without answers."""
    given = list(answers)
    if not given:
        return {}
    accuracy = fmean(answer.score for answer in given)
    low, high = interval(given)
    return {
        "num_questions": len({answer.question for answer in given}),
        "num_answers": len(given),
        "accuracy": accuracy,
        "accuracy_lo": low,
        "accuracy_hi": high,
        "mean_response_tokens": fmean(answer.num_tokens for answer in given),
        "format_rate": fmean(answer.format_ok for answer in given),
    }


def interval(answers: list[Answer]) -> tuple[float, float]:
    """Wilson's where each question has one answer that is right or wrong; else of the mean over clustered answers.

    Where all clusters agree their spread says nothing, and Wilson's interval over the questions is given.
    """
    clusters: dict[str, list[float]] = {}
    for answer in answers:
        clusters.setdefault(answer.question, []).append(answer.score)
    binary = all(answer.score in (0.0, 1.0) for answer in answers)
    mean = fmean(answer.score for answer in answers)
    if len(clusters) == len(answers) and binary:
        return wilson(mean, len(answers))
    error = clustered_error(list(clusters.values()), mean)
    if error == 0.0:
        return wilson(mean, len(clusters))
    return max(0.0, mean - Z * error), min(1.0, mean + Z * error)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson 1927, without continuity correction.

    >>> [round(end, 4) for end in wilson(0.5, 100)]
    [0.4038, 0.5962]
    """
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def clustered_error(clusters: list[list[float]], mean: float) -> float:
    """Standard error of a mean over answers that come in clusters (Liang and Zeger 1986, with m / (m - 1))."""
    number = len(clusters)
    if number < 2:
        return 0.0
    total = sum(len(cluster) for cluster in clusters)
    squares = sum(sum(score - mean for score in cluster) ** 2 for cluster in clusters)
    return math.sqrt(squares * number / (number - 1)) / total
