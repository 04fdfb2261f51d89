"""Answers to what they cost and how they read: response tokens with their tail, truncation, format, words of reflection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median

REFLECTIONS = frozenset(
    [
        "actually",
        "again",
        "alternatively",
        "check",
        "checking",
        "hmm",
        "however",
        "mistake",
        "reconsider",
        "recheck",
        "rethink",
        "verify",
        "wait",
    ]
)
"""Words with which a model turns back on what it wrote. The list is ours: no paper prints one."""
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Manner:
    """Of one response. ``cut`` where it stopped at the longest length; words are runs of letters."""

    num_tokens: int
    format_ok: bool
    cut: bool = False
    num_words: int = 0
    num_reflections: int = 0


def manner(text: str, num_tokens: int, format_ok: bool, finish: str | None) -> Manner:
    """
    >>> manner("Wait, 2 + 2 is four. Check: four.", 9, True, "stop")
    Manner(num_tokens=9, format_ok=True, cut=False, num_words=5, num_reflections=2)
    """
    words = _WORD.findall(text.casefold())
    return Manner(
        num_tokens, format_ok, finish == "length", len(words), sum(w in REFLECTIONS for w in words)
    )


def economy(manners: Sequence[Manner]) -> dict[str, float]:
    """Mean, median and 95th percentile (nearest rank) of response tokens, and rates in 0 .. 1.

    ``reflection_share`` is of all words of all responses. ValueError without responses.
    """
    tokens = sorted(one.num_tokens for one in manners)
    words = sum(one.num_words for one in manners)
    return {
        "mean_response_tokens": fmean(tokens),
        "median_response_tokens": median(tokens),
        "p95_response_tokens": float(tokens[ceil(0.95 * len(tokens)) - 1]),
        "format_rate": fmean(one.format_ok for one in manners),
        "truncation_rate": fmean(one.cut for one in manners),
        "reflection_share": sum(one.num_reflections for one in manners) / words if words else 0.0,
    }
