"""Scored answers to the figures of a benchmark: its accuracy with a 95% interval, and what the answers cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import NormalDist, fmean
from typing import TypeAlias, assert_never

from omr_runtime.verify.answers import exact
from omr_runtime.verify.economy import Manner, economy
from omrlang.types import Aggregate, Chains, Worst

Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Answer:
    """``question`` is the id of the row that was asked, ``problem`` what it is a variant of, itself if of nothing: answers
    to one problem are one cluster. ``score`` in 0 .. 1. ``said`` is the final answer, an option as its text, ``step`` which
    step of the problem was asked for."""

    question: str
    score: float
    problem: str
    manner: Manner
    said: str | None = None
    step: str | None = None


Counted: TypeAlias = tuple[str, float]
"""One thing that an accuracy is the mean of: the problem that it belongs to and its value in 0 .. 1."""


def measure(answers: Mapping[Aggregate, Iterable[Answer]]) -> dict[str, float]:
    """The figures of one benchmark, or of all, whose answers stand under how they are counted. Empty without answers.

    ``accuracy`` is the mean of what is counted; ``mean_score``, that over answers, stands beside it where it is not that.
    Where nothing can be counted, no chain being whole, there is no accuracy.
    """
    by_way = {aggregate: list(found) for aggregate, found in answers.items()}
    given = [answer for found in by_way.values() for answer in found]
    if not given:
        return {}
    values = [one for aggregate, found in by_way.items() for one in counted(aggregate, found)]
    plain = {} if set(by_way) == {"mean"} else {"mean_score": fmean(a.score for a in given)}
    return {
        "num_questions": len({answer.question for answer in given}),
        "num_answers": len(given),
        **_accuracy(values),
        **plain,
        **economy([answer.manner for answer in given]),
    }


def _accuracy(values: Sequence[Counted]) -> dict[str, float]:
    if not values:
        return {}
    low, high = interval(values)
    mean = fmean(value for _, value in values)
    return {"accuracy": mean, "accuracy_lo": low, "accuracy_hi": high}


# ---- what is counted -------------------------------------------------------------------------------------------


def counted(aggregate: Aggregate, answers: Iterable[Answer]) -> list[Counted]:
    """Answers, questions or problems with their values, in order of problems and questions."""
    ordered = sorted(answers, key=lambda answer: (answer.problem, answer.question))
    if aggregate == "mean":
        return [(answer.problem, answer.score) for answer in ordered]
    by_question = [
        (*key, list(found))
        for key, found in groupby(ordered, key=lambda answer: (answer.problem, answer.question))
    ]
    if aggregate == "majority":
        return [(problem, majority(found)) for problem, _, found in by_question]
    if isinstance(aggregate, Worst):
        means = [(problem, fmean(a.score for a in found)) for problem, _, found in by_question]
        by_problem = groupby(means, key=lambda one: one[0])
        return [(problem, min(value for _, value in found)) for problem, found in by_problem]
    if isinstance(aggregate, Chains):
        return chains(aggregate, by_question)
    assert_never(aggregate)


def chains(way: Chains, by_question: Iterable[tuple[str, str, list[Answer]]]) -> list[Counted]:
    """Each chain of which the whole and a step were answered, with what it counts (arXiv 2407.01284, section 3.2)."""
    found: dict[str, tuple[list[bool], list[bool]]] = {}
    for problem, _, given in by_question:
        whole, steps = found.setdefault(problem, ([], []))
        is_right = fmean(answer.score for answer in given) > 0.5
        (whole if given[0].step == way.whole else steps).append(is_right)
    return [
        (problem, _chain(all(whole), steps, way.loose))
        for problem, (whole, steps) in found.items()
        if whole and steps
    ]


def _chain(whole: bool, steps: list[bool], loose: bool) -> float:
    if all(steps):
        return 1.0 if whole else 0.5
    return float(whole and loose and any(steps))


def majority(answers: Sequence[Answer]) -> float:
    """The score of the answer that most agree in (arXiv 2203.11171); numbers agree in any notation.

    Of as many votes the answer that comes first in the alphabet goes before, so that no order of samples decides. Where
    a judge scored equal answers apart it is their mean; where nobody said anything it is the mean of all.
    """
    ballots: list[list[Answer]] = []
    for answer in sorted(answers, key=lambda answer: answer.said or ""):
        if not answer.said:
            continue
        same = (ballot for ballot in ballots if exact(ballot[0].said or "", answer.said))
        if (ballot := next(same, None)) is None:
            ballots.append(ballot := [])
        ballot.append(answer)
    winner = max(ballots, key=len, default=answers)
    return fmean(answer.score for answer in winner)


# ---- intervals -------------------------------------------------------------------------------------------------


def interval(values: Sequence[Counted]) -> tuple[float, float]:
    """Wilson's where each problem counts once, right or wrong; else of the mean over values in clusters.

    Where all clusters agree their spread says nothing, and Wilson's interval over the problems is given.
    """
    clusters: dict[str, list[float]] = {}
    for problem, value in values:
        clusters.setdefault(problem, []).append(value)
    binary = all(value in (0.0, 1.0) for _, value in values)
    mean = fmean(value for _, value in values)
    if len(clusters) == len(values) and binary:
        return wilson(mean, len(values))
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
