"""Several recipes become their design: which factors vary, over how many levels, and which cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from omrlang.diff.report import Diff

MAX_NAMED = 4
SAME = ""
"""The level of a factor in a recipe that does not differ from the first in it."""


def levels(diffs: Sequence[Diff]) -> dict[str, tuple[str, ...]]:
    """By factor its value in every recipe, the first recipe's first; only factors that act."""
    found: dict[str, list[str]] = {}
    for number, diff in enumerate(diffs, start=1):
        for factor in diff.acting:
            row = found.setdefault(factor.address, [factor.old] + [SAME] * len(diffs))
            row[number] = factor.new
    return {name: tuple(value or row[0] for value in row) for name, row in found.items()}


def design_note(table: dict[str, tuple[str, ...]], num_recipes: int) -> str:
    """``one factor at four levels``, ``2x2, complete``, or which factors no pair of recipes separates.

    >>> design_note({"n": ("1", "2", "4")}, 3)
    'one factor at three levels: n'
    >>> design_note({"n": ("1", "2", "1", "2"), "judge": ("a", "a", "b", "b")}, 4)
    '2x2, complete: n, judge'
    >>> design_note({"n": ("1", "2"), "judge": ("a", "b")}, 2)
    'n and judge are confounded: no pair of recipes separates them'
    """
    if not table:
        return "no factor varies"
    tied = _confounded(table)
    sizes = [len(set(values)) for values in table.values()]
    names = ", ".join(table)
    if tied:
        groups = "; ".join(f"{_listed(names)} are confounded" for names in tied)
        return f"{groups}: no pair of recipes separates them"
    if len(table) == 1:
        return f"one factor at {_number(sizes[0])} levels: {names}"
    cells = len(set(zip(*table.values(), strict=True)))
    shape = "x".join(map(str, sizes))
    if cells == prod(sizes):
        return f"{shape}, complete: {names}"
    if _one_at_a_time(table, num_recipes):
        return f"{_number(len(table))} factors, one at a time against the first: {names}"
    return f"{shape}, {cells} of {prod(sizes)} cells: {names}"


def _confounded(table: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """Factors that always change together: no two recipes differ in one of them and agree in another."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, values in table.items():
        groups.setdefault(tuple(values.index(value) for value in values), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _listed(names: list[str]) -> str:
    shown, more = names[:MAX_NAMED], len(names) - MAX_NAMED
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _one_at_a_time(table: dict[str, tuple[str, ...]], num_recipes: int) -> bool:
    changed = [sum(row[k] != row[0] for row in table.values()) for k in range(1, num_recipes)]
    return all(number <= 1 for number in changed)


def _number(value: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[value] if value < len(words) else str(value)
