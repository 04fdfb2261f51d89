"""Plans become what makes them different experiments: factors, what moves with them, what is redone and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from omrlang.diff.design import design_note, levels
from omrlang.diff.factors import find_factors
from omrlang.diff.moves import find_moves, with_holding
from omrlang.diff.origins import Origins
from omrlang.diff.pairs import Pair, pair_up
from omrlang.diff.price import cheapest_order, marginal, price, scratch, together, untimed
from omrlang.diff.report import Column, Diff, Effect, Factor, StageDiff, Study
from omrlang.diff.verdict import verdict
from omrlang.plan import Plan, PlanStage
from omrlang.types import construct

__all__ = ["Diff", "Side", "Study", "diff", "study"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared: ``name`` as it was asked for, ``focus`` the one training stage of the plan that is
    meant where it has several."""

    name: str
    plan: Plan
    origins: Origins = field(default_factory=Origins)
    focus: str | None = None


def diff(a: Side, b: Side) -> Diff:
    """B against A, whose plans were made with one state."""
    same = {b.focus: a.focus} if a.focus is not None and b.focus is not None else {}
    pairs = pair_up(a.plan, b.plan, same)
    found = find_factors(pairs, a.origins, b.origins)
    factors = with_holding(found.deciding, pairs)
    moves = find_moves(pairs, (a.plan, b.plan)) if factors or found.others else ()
    stages = tuple(_stage_diff(pair, factors) for pair in pairs)
    return construct(
        Diff,
        a=a.name,
        b=b.name,
        verdict=verdict(factors, found.others, moves, stages),
        factors=factors,
        others=found.others,
        moves=moves,
        stages=stages,
        num_same=found.num_same,
        price=price(a.plan, b.plan),
    )


def study(sides: Sequence[Side]) -> Study:
    """Each against the first, their design, and what all of them cost in the cheapest order."""
    sides = _told_apart(sides)
    diffs = tuple(diff(sides[0], side) for side in sides[1:])
    table = levels(diffs)
    plans = [side.plan for side in sides]
    order = cheapest_order(plans)
    added = {n: marginal(plans[n], [plans[k] for k in order[:at]]) for at, n in enumerate(order)}
    columns = tuple(
        construct(
            Column,
            name=side.name,
            values=tuple(row[number] for row in table.values()),
            scratch=scratch(side.plan),
            marginal=added[number],
            untimed=untimed(side.plan),
        )
        for number, side in enumerate(sides)
    )
    return construct(
        Study,
        design=design_note(table, len(sides)) + _not_clean(diffs),
        factors=tuple(table),
        columns=columns,
        diffs=diffs,
        order=tuple(sides[number].name for number in order),
        together=together([plans[number] for number in order]),
        shared_stages=_shared(plans),
    )


def _told_apart(sides: Sequence[Side]) -> list[Side]:
    """Those that go by one name with a number behind it."""
    names = [side.name for side in sides]
    again = [names[:number].count(name) for number, name in enumerate(names)]
    return [
        replace(side, name=f"{side.name} ({times + 1})") if times else side
        for side, times in zip(sides, again, strict=True)
    ]


def _not_clean(diffs: Sequence[Diff]) -> str:
    """What a design cannot say: that more than its factors moves."""
    number = sum(bool(found.confounds) for found in diffs)
    return f"; not clean: more moves along in {number} of {len(diffs)}" if number else ""


def _shared(plans: Sequence[Plan]) -> int:
    """Artifacts that every recipe of the study uses."""
    sets = [{stage.fingerprint for stage in plan.stages} for plan in plans]
    return len(set.intersection(*sets))


# ---- stages --------------------------------------------------------------------------------------------------------


def _stage_diff(pair: Pair, factors: Sequence[Factor]) -> StageDiff:
    if pair.a is None or pair.b is None:
        stage = pair.b or pair.a
        assert stage is not None, "a pair has one side at least"
        effect: Effect = "added" if pair.a is None else "removed"
        return construct(StageDiff, name=stage.name, kind=stage.spec.kind, effect=effect)
    effect, why = _effect(pair, pair.a, pair.b, factors)
    old_name = pair.a.name if pair.a.name != pair.b.name else None
    return construct(
        StageDiff,
        name=pair.b.name,
        kind=pair.b.spec.kind,
        effect=effect,
        why=why,
        old_name=old_name,
    )


def _effect(
    pair: Pair, a: PlanStage, b: PlanStage, factors: Sequence[Factor]
) -> tuple[Effect, str]:
    if a.fingerprint == b.fingerprint:
        return ("not in meaning", "") if pair.own or pair.respelt else ("same", "")
    own = [factor for factor in factors if pair.name in factor.stages]
    if own:
        return "changed", "; ".join(f"{factor.path} {factor.old} -> {factor.new}" for factor in own)
    named = [m.new.parent for m in pair.moved if m.new is not None and m.new.parent]
    if not named:
        return "changed", "a derived value moved"
    return "downstream", f"{', '.join(dict.fromkeys(named))} changed"
