"""Factors, moves and stages become one sentence: whether a difference in the results would have one cause."""

from __future__ import annotations

from collections.abc import Sequence

from omrlang.diff.report import Factor, Kind, Move, StageDiff, Verdict
from omrlang.types import construct

MAX_NAMED = 3


def verdict(
    factors: Sequence[Factor],
    others: Sequence[Factor],
    moves: Sequence[Move],
    stages: Sequence[StageDiff],
) -> Verdict:
    """The kind, and the sentence that says why."""
    shape = _shape(stages)
    confounds = len({(m.stage, m.quantity) for m in moves if m.matters == "confound"})
    if factors:
        kind, text = _of_factors(factors, confounds, moves)
    elif confounds:
        kind, text = "not clean", f"not clean: no factor, and yet {_along(confounds)}"
    else:
        return _without_factors(others, stages, shape)
    return construct(
        Verdict, kind=kind, text="; ".join([text, ", ".join(shape)] if shape else [text])
    )


def _of_factors(
    factors: Sequence[Factor], confounds: int, moves: Sequence[Move]
) -> tuple[Kind, str]:
    acting = [factor for factor in factors if factor.role == "acts"]
    unknown = [factor for factor in factors if factor.role == "open"]
    if not acting and unknown:
        number = _n(len(unknown), "setting")
        return "unknown", f"unknown: {number} that nobody published ({_named(unknown)})"
    if not acting:
        named = ", ".join(factor.address for factor in factors)
        return "no effect", f"no effect: {named} cannot act"
    head = f"{_n(len(acting), 'factor')} ({_named(acting)})"
    but = _but(unknown, moves)
    if len(acting) == 1 and not confounds:
        return "clean", f"clean: {head}{but}"
    along = f", and {_along(confounds)}" if confounds else " at once"
    return "not clean", f"not clean: {head}{along}{but}"


def _without_factors(
    others: Sequence[Factor], stages: Sequence[StageDiff], shape: list[str]
) -> Verdict:
    if shape:
        return construct(Verdict, kind="stages only", text=f"no factor; {', '.join(shape)}")
    renamed = sum(stage.old_name is not None for stage in stages)
    count = len(others)
    said = (
        [f"{_n(count, 'setting')} that decide{'s' if count == 1 else ''} no result"]
        if count
        else []
    )
    said += [f"{_n(renamed, 'stage')} renamed"] if renamed else []
    if not said:
        return construct(Verdict, kind="no change", text="no change")
    return construct(
        Verdict, kind="no change in meaning", text=f"no change in meaning: {', '.join(said)}"
    )


def _but(unknown: Sequence[Factor], moves: Sequence[Move]) -> str:
    """What the verdict cannot know."""
    may = sum(move.matters == "unknown" for move in moves)
    said = [f"{len(unknown)} unpublished"] if unknown else []
    said += [f"{_n(may, 'thing')} that may move"] if may else []
    return f", as far as is known ({', '.join(said)})" if said else ""


def _shape(stages: Sequence[StageDiff]) -> list[str]:
    redo = sum(stage.effect in ("changed", "downstream") for stage in stages)
    added, removed = (sum(s.effect == effect for s in stages) for effect in ("added", "removed"))
    counted = ((redo, "to redo"), (added, "added"), (removed, "removed"))
    return [f"{_n(number, 'stage')} {word}" for number, word in counted if number]


def _named(factors: Sequence[Factor]) -> str:
    shown = [f"{factor.address} {_short(factor.old)} -> {_short(factor.new)}" for factor in factors]
    return ", ".join([*shown[:MAX_NAMED], *(["…"] if len(shown) > MAX_NAMED else [])])


def _short(text: str) -> str:
    return text if len(text) <= 48 else f"{text[:47]}…"


def _along(number: int) -> str:
    return f"{_n(number, 'thing')} move{'s' if number == 1 else ''} along"


def _n(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
