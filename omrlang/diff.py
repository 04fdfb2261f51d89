"""Two plans become what makes them different experiments: factors, what moves along, what is redone and what it costs."""

from __future__ import annotations

from typing import Literal, TypeAlias

from omrlang.confounds import Move, find_moves
from omrlang.estimate.costs import totals
from omrlang.estimate.ranges import scaled, scaled_money
from omrlang.factors import Factor, Pair, find_factors, pair_up
from omrlang.plan import Costs, Exit, Plan, PlanStage, Totals
from omrlang.schema import Sample, Spec
from omrlang.types import Frozen

FORMAT_VERSION = "1.0"
Effect: TypeAlias = Literal["same", "changed", "downstream", "not in meaning", "added", "removed"]


class StageDiff(Frozen):
    """``old_name`` is set where a stage was renamed."""

    name: str
    kind: str
    effect: Effect
    why: str = ""
    old_name: str | None = None


class Diff(Frozen):
    """``factors`` decide results, ``others`` do not (speed and meta). ``after`` is what B costs when A was run."""

    format_version: str = FORMAT_VERSION
    a: str
    b: str
    verdict: str
    clean: bool
    factors: tuple[Factor, ...]
    others: tuple[Factor, ...]
    moves: tuple[Move, ...]
    stages: tuple[StageDiff, ...]
    num_same: int
    cost_a: Totals
    cost_b: Totals
    after: Totals
    exit: Exit = Exit(code=0, reason="ok")

    @property
    def redo(self) -> tuple[str, ...]:
        """Stages of B that A's artifacts do not serve."""
        return tuple(
            stage.name
            for stage in self.stages
            if stage.effect in ("changed", "downstream", "added")
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all differs."""
        return (
            not self.factors
            and not self.others
            and all(stage.effect == "same" and stage.old_name is None for stage in self.stages)
        )


def diff(a: Plan, b: Plan) -> Diff:
    """Compare two plans that were made with one state."""
    pairs = pair_up(a, b)
    factors, others, same = find_factors(pairs)
    moves = tuple(find_moves(pairs)) if factors else ()
    stages = tuple(_stage_diff(pair, factors) for pair in pairs)
    clean = len([factor for factor in factors if not factor.note]) <= 1 and not moves
    return Diff(
        a=" ".join([a.recipe, *(f"--set {item}" for item in a.overrides)]),
        b=" ".join([b.recipe, *(f"--set {item}" for item in b.overrides)]),
        verdict=_verdict(factors, others, moves, stages),
        clean=clean,
        factors=factors,
        others=others,
        moves=moves,
        stages=stages,
        num_same=same,
        cost_a=_scratch(a),
        cost_b=_scratch(b),
        after=_after(a, b, pairs),
    )


# ---- stages and costs ----------------------------------------------------------------------------------------------


def _stage_diff(pair: Pair, factors: tuple[Factor, ...]) -> StageDiff:
    if pair.a is None or pair.b is None:
        stage = pair.b or pair.a
        assert stage is not None, "a pair has one side at least"
        return StageDiff(
            name=stage.name, kind=stage.spec.kind, effect="added" if pair.a is None else "removed"
        )
    old_name = pair.a.name if pair.a.name != pair.b.name else None
    effect, why = _effect(pair, pair.a, pair.b, factors)
    return StageDiff(
        name=pair.b.name, kind=pair.b.spec.kind, effect=effect, why=why, old_name=old_name
    )


def _effect(
    pair: Pair, a: PlanStage, b: PlanStage, factors: tuple[Factor, ...]
) -> tuple[Effect, str]:
    if a.fingerprint == b.fingerprint:
        return (
            ("not in meaning", "")
            if any(moved.reason != "parent_changed" for moved in pair.moved)
            else ("same", "")
        )
    own = [factor for factor in factors if pair.name in factor.stages]
    if own:
        return "changed", "; ".join(f"{factor.path} {factor.old} -> {factor.new}" for factor in own)
    parents = dict.fromkeys(
        moved.new.parent for moved in pair.moved if moved.new is not None and moved.new.parent
    )
    return "downstream", f"{', '.join(parents)} changed"


def _scratch(plan: Plan) -> Totals:
    """The whole recipe, nothing cached."""
    costs, specs = _costs(plan)
    return totals(costs, dict.fromkeys(costs, "new"), specs)


def _costs(plan: Plan) -> tuple[dict[str, Costs], dict[str, Spec]]:
    return {stage.name: stage.costs for stage in plan.stages if stage.costs is not None}, {
        stage.name: stage.spec for stage in plan.stages
    }


def _after(a: Plan, b: Plan, pairs: tuple[Pair, ...]) -> Totals:
    """What B takes once A has been run: stages with A's fingerprints are there, and so are A's samples."""
    there = {stage.fingerprint for stage in a.stages}
    costs, specs = _costs(b)
    due = {
        stage.name: costs[stage.name]
        for stage in b.stages
        if stage.name in costs and stage.fingerprint not in there
    }
    for pair in pairs:
        if pair.b is not None and pair.b.name in due and (share := _new_samples(pair)) is not None:
            due[pair.b.name] = _part(due[pair.b.name], share)
    return totals(due, dict.fromkeys(due, "new"), specs)


def _new_samples(pair: Pair) -> float | None:
    """The share of a ``sample`` stage that is still to be drawn where only ``n`` moved: 4 -> 8 pays for four."""
    if (
        pair.a is None
        or pair.b is None
        or not isinstance(pair.a.spec, Sample)
        or not isinstance(pair.b.spec, Sample)
    ):
        return None
    matters = [moved for moved in pair.moved if moved.change().cls == "rows"]
    if [moved.path for moved in matters] != ["n"]:
        return None
    return max(0.0, 1 - pair.a.spec.n / pair.b.spec.n)


def _part(cost: Costs, share: float) -> Costs:
    update = {
        name: scaled(getattr(cost, name), share)
        for name in ("rows_out", "tokens", "seconds", "gpu_hours")
    }
    return cost.model_copy(update={**update, "usd": scaled_money(cost.usd, share)})


# ---- verdict -------------------------------------------------------------------------------------------------------


def _verdict(
    factors: tuple[Factor, ...],
    others: tuple[Factor, ...],
    moves: tuple[Move, ...],
    stages: tuple[StageDiff, ...],
) -> str:
    redo = sum(stage.effect in ("changed", "downstream") for stage in stages)
    added, removed = (
        sum(stage.effect == effect for stage in stages) for effect in ("added", "removed")
    )
    renamed = sum(stage.old_name is not None for stage in stages)
    acting = [factor for factor in factors if not factor.note]
    shape = [
        f"{_n(number, 'stage')} {word}"
        for number, word in ((redo, "to redo"), (added, "added"), (removed, "removed"))
        if number
    ]
    if not factors and not added and not removed:
        names = (
            [f"{_n(len(others), 'setting')} that decide{'s' if len(others) == 1 else ''} no result"]
            if others
            else []
        )
        names += [f"{_n(renamed, 'stage')} renamed"] if renamed else []
        return f"no change in meaning: {', '.join(names)}" if names else "no change"
    if not factors:
        return f"no factor; {', '.join(shape)}"
    if not acting:
        return f"no effect: {', '.join(factor.path for factor in factors)} cannot act; {', '.join(shape)}"
    named = ", ".join(f"{factor.path} {factor.old} -> {factor.new}" for factor in acting[:3]) + (
        ", …" if len(acting) > 3 else ""
    )
    head = f"{_n(len(acting), 'factor')} ({named})"
    tail = (
        "clean"
        if not moves and len(acting) == 1
        else f"not clean: {_n(len(moves), 'thing')} move{'s' if len(moves) == 1 else ''} along"
        if moves
        else "several factors at once"
    )
    return "; ".join([f"{head}, {tail}", ", ".join(shape)]) if shape else f"{head}, {tail}"


def _n(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
