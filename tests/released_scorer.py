"""The rule path of OpenMMReasoner's released scorer (custom_rewards/lmms_lab_recipe.py at 67441eb8), as its reference
describes it: what its numbers were made with. Written from the description, for comparison only.

The true answer of a choice is its letter: patterns are tried by priority, and the first that finds any letter decides.
Else one text must hold the other at nine tenths of its length, else math-verify must find them equal. What is left went to
a judge, which is not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

PATTERNS = (
    r"^\s*\(?([A-H])",
    r"([A-H])\)?\s*$",
    r"\d+[.)]\s*([A-H])",
    r"(?:answer|option|choice)(?: is|:)?\s*\(?([A-H])\b",
    r"\(([A-H])\)",
    r"\b([A-H])\.\s",
    r"\b([A-H]):\s",
    r"\b([A-H])\)\s",
    r"\s([A-H])\s",
    r"([A-H])",
)
"""Start, end, numbered, phrase, (X), "X. ", "X: ", "X) ", between spaces, anywhere: highest priority first."""


def released(truth: str, given: str, equal_as_math: Callable[[str, str], bool]) -> bool:
    """Whether the rules alone accept it."""
    answer = given.strip().removesuffix(".").strip()
    if not answer:
        return False
    if re.fullmatch("[A-H]", truth) and letter(answer) == truth:
        return True
    return _holds(truth.strip(), answer) or equal_as_math(truth, answer)


def letter(answer: str) -> str | None:
    """The letter that the first pattern finds."""
    for pattern in PATTERNS:
        if found := re.search(pattern, answer):
            return found[1]
    return None


def _holds(truth: str, answer: str) -> bool:
    shorter, longer = sorted((truth, answer), key=len)
    return shorter == longer or (shorter in longer and len(shorter) >= 0.9 * len(longer))
