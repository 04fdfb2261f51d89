"""Two plans become what makes them different experiments: factors, what moves along, what is redone and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from omrlang.changes import Moved, compare
from omrlang.estimate.costs import totals
from omrlang.estimate.ranges import scaled, scaled_money
from omrlang.fingerprint import deciding_classes, leaves, num_devices, settled_amount
from omrlang.plan import Costs, Exit, Plan, PlanStage, Totals
from omrlang.schema import Rl, Sample, Sft, Spec
from omrlang.types import Frozen, SettingClass

FORMAT_VERSION = "1.0"
CLASSES: tuple[SettingClass, ...] = ("rows", "weights", "speed", "meta")
PER_BRANCH = frozenset({"clip"})
"""Arguments whose scale belongs to the algorithm, so that they change with it as one factor."""

NOTICEABLE = 0.02
"""A move under two percent is not told."""

Effect: TypeAlias = Literal["same", "changed", "downstream", "not in meaning", "added", "removed"]


class Factor(Frozen):
    """One thing that somebody set differently; ``stages`` share it. ``note`` says where it cannot act."""

    path: str
    cls: SettingClass
    old: str
    new: str
    stages: tuple[str, ...]
    note: str = ""


class Move(Frozen):
    """What moves with the factors though nobody wrote it, and the setting that would hold it."""

    stage: str
    what: str
    old: str
    new: str
    why: str
    hold: str = ""


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
        return tuple(stage.name for stage in self.stages if stage.effect in ("changed", "downstream", "added"))

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all differs."""
        return not self.factors and not self.others and all(stage.effect == "same" and stage.old_name is None for stage in self.stages)


@dataclass(frozen=True, slots=True)
class _Pair:
    """One stage of both plans, or of one of them."""

    a: PlanStage | None
    b: PlanStage | None
    moved: tuple[Moved, ...] = ()

    @property
    def name(self) -> str:
        stage = self.b or self.a
        assert stage is not None, "a pair has one side at least"
        return stage.name


def diff(a: Plan, b: Plan) -> Diff:
    """Compare two plans that were made with one state."""
    pairs = _pairs(a, b)
    factors, others, same = _factors(pairs)
    moves = tuple(_moves(pairs)) if factors else ()
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


# ---- which stage is which ------------------------------------------------------------------------------------------


def _pairs(a: Plan, b: Plan) -> tuple[_Pair, ...]:
    """By name, then by fingerprint, then by kind and everything but what they refer to; in B's order, A's rest last."""
    left = {stage.name: stage for stage in a.stages}
    names = {stage.name for stage in b.stages}
    free = [stage for stage in a.stages if stage.name not in names]
    chosen: dict[str, PlanStage | None] = {}
    for stage in b.stages:
        chosen[stage.name] = left[stage.name] if stage.name in left else _take(free, stage)
    maps = {stage.name: stage.fingerprint for stage in a.stages}, {stage.name: stage.fingerprint for stage in b.stages}
    renamed = {old.name: new for new, old in chosen.items() if old is not None and old.name != new}
    found = [_Pair(chosen[stage.name], stage, _moved(chosen[stage.name], stage, *maps, renamed)) for stage in b.stages]
    return (*found, *(_Pair(stage, None) for stage in free))


def _take(free: list[PlanStage], wanted: PlanStage) -> PlanStage | None:
    """A stage of A that is the wanted one under another name, removed from ``free``."""
    twins = [stage for stage in free if stage.fingerprint == wanted.fingerprint]
    twins += [stage for stage in free if stage.spec.kind == wanted.spec.kind and _own(stage) == _own(wanted)]
    if not twins:
        return None
    free.remove(twins[0])
    return twins[0]


def _own(stage: PlanStage) -> list[tuple[str, str]]:
    """What a stage says itself, apart from the stages that it names and its own name."""
    nothing = dict.fromkeys(stage.parents, "")
    found = leaves(stage.spec, nothing, stage.revision)
    matters = deciding_classes(stage.spec)
    return sorted((leaf.key, str(leaf.value)) for leaf in found if leaf.cls in matters and leaf.parent is None)


def _moved(
    a: PlanStage | None, b: PlanStage, names_a: Mapping[str, str], names_b: Mapping[str, str], renamed: Mapping[str, str]
) -> tuple[Moved, ...]:
    """Every leaf that differs, whatever its class; what was renamed goes under its new name."""
    if a is None or a.spec.kind != b.spec.kind:
        return ()
    before = tuple(leaf.under(renamed) for leaf in leaves(a.spec, names_a, a.revision))
    return tuple(compare(before, leaves(b.spec, names_b, b.revision), CLASSES))


# ---- factors -------------------------------------------------------------------------------------------------------


def _factors(pairs: tuple[_Pair, ...]) -> tuple[tuple[Factor, ...], tuple[Factor, ...], int]:
    """Those that decide results, those that do not, and how many settings are the same in both."""
    found: dict[tuple[str, str, str, bool], Factor] = {}
    same = 0
    for pair in pairs:
        if pair.a is None or pair.b is None:
            continue
        matters = deciding_classes(pair.b.spec)
        same += len(leaves(pair.b.spec, dict.fromkeys(pair.b.parents, ""), None)) - len(pair.moved)
        for factor in _folded(pair):
            key = (factor.path, factor.old, factor.new, factor.cls in matters)
            known = found.get(key)
            found[key] = factor if known is None else known.model_copy(update={"stages": (*known.stages, *factor.stages)})
    deciding = tuple(factor for (_, _, _, matters), factor in found.items() if matters)
    return deciding, tuple(factor for (_, _, _, matters), factor in found.items() if not matters), same


def _folded(pair: _Pair) -> Iterator[Factor]:
    """The stage's own changes; what belongs to one choice (a branch, a model, a prompt) is one factor."""
    own = [moved for moved in pair.moved if moved.reason != "parent_changed"]
    heads = [moved for moved in own if _is_head(moved, own)]
    for moved in own:
        if not any(_belongs(moved, head) for head in heads):
            yield _factor(pair, moved)


def _is_head(moved: Moved, own: list[Moved]) -> bool:
    """A choice that changed: another branch, or a model or prompt of another name and other content."""
    if moved.path in ("with", "from") or (moved.old is not None and moved.new is not None and moved.old.branch):
        return True
    root, _, last = moved.path.rpartition(".")
    return last == "name" and any(other.path.startswith(f"{root}.") and other is not moved for other in own)


def _belongs(moved: Moved, head: Moved) -> bool:
    """Whether a change is part of a choice that changed."""
    root = head.path.removesuffix(".name")
    if moved is head or not moved.path.startswith(f"{root}."):
        return False
    if head.path.endswith(".name") or root in ("with", "from"):
        return True
    if moved.old is None or moved.new is None or (moved.old.default and moved.new.default):
        return True
    return moved.path.rpartition(".")[2] in PER_BRANCH


def _factor(pair: _Pair, moved: Moved) -> Factor:
    change = moved.change()
    path = change.path.removesuffix(".name")
    cls = change.cls
    if path == "with":
        named = next((item.change() for item in pair.moved if item.path == "with.name"), change)
        old, new = (change.old if named.old == "none" else named.old), (change.new if named.new == "none" else named.new)
        change = change.model_copy(update={"old": old, "new": new})
    if path != change.path and len(pair.moved) > 1:
        cls = _strongest([item.change().cls for item in pair.moved if item.path.startswith(f"{path}.")])
    return Factor(path=path, cls=cls, old=change.old, new=change.new, stages=(pair.name,), note=_no_effect(pair, moved))


def _strongest(classes: list[SettingClass]) -> SettingClass:
    return min(classes, key=CLASSES.index)


def _no_effect(pair: _Pair, moved: Moved) -> str:
    """Why a setting of class ``weights`` cannot act under these plans."""
    if moved.path != "algorithm.clip" or pair.a is None or pair.b is None:
        return ""
    if all(isinstance(stage.spec, Rl) and _one_update(stage.spec) for stage in (pair.a, pair.b)):
        return "no effect: one update for each rollout batch, so the ratio is 1 and nothing is clipped"
    return ""


def _one_update(spec: Rl) -> bool:
    devices = num_devices(spec)
    return spec.minibatch is None or settled_amount(spec.minibatch, devices) == settled_amount(spec.batch, devices)


# ---- what moves along ----------------------------------------------------------------------------------------------


def _moves(pairs: tuple[_Pair, ...]) -> Iterator[Move]:
    for pair in pairs:
        if pair.a is None or pair.b is None or pair.a.costs is None or pair.b.costs is None:
            continue
        if isinstance(pair.b.spec, Sft | Rl):
            yield from _length_moves(pair, pair.b.spec, pair.a.costs, pair.b.costs)
        elif pair.b.spec.kind == "mix":
            yield from _share_moves(pair, pair.a.costs, pair.b.costs)


def _length_moves(pair: _Pair, spec: Sft | Rl, a: Costs, b: Costs) -> Iterator[Move]:
    """Fixed steps over other rows are other epochs; fixed epochs over other rows are other steps."""
    if any(moved.path in ("steps", "epochs", "batch") for moved in pair.moved):
        return
    derived = "epochs" if spec.steps is not None else "steps"
    old, new = a.extra.get(derived), b.extra.get(derived)
    if old is None or new is None or not old.mid or not new.mid or abs(new.mid / old.mid - 1) < NOTICEABLE:
        return
    rows = "more" if (old.mid < new.mid) == (derived == "steps") else "fewer"
    if derived == "epochs" and spec.steps is not None:
        hold = f"{spec.name}.steps = {max(1, round(spec.steps * old.mid / new.mid)):_}"
        yield Move(stage=spec.name, what="epochs", old=f"{old.mid:.2g}", new=f"{new.mid:.2g}", why=f"steps are fixed and the rows hold {rows} tokens", hold=hold)
    else:
        hold = f"{spec.name}.steps = {max(1, round(old.mid)):_} instead of epochs"
        yield Move(stage=spec.name, what="steps", old=f"{old.mid:,.0f}", new=f"{new.mid:,.0f}", why=f"epochs are fixed and the rows hold {rows} tokens", hold=hold)


def _share_moves(pair: _Pair, a: Costs, b: Costs) -> Iterator[Move]:
    """The source in both whose share of the mix moved most."""
    shares = [_shares(costs) for costs in (a, b)]
    both = [name for name in shares[0] if name in shares[1]]
    name = max(both, key=lambda name: abs(shares[1][name] - shares[0][name]), default=None)
    if name is None or abs(shares[1][name] - shares[0][name]) < NOTICEABLE / 2:
        return
    old, new = f"{shares[0][name]:.1%}", f"{shares[1][name]:.1%}"
    yield Move(stage=pair.name, what=f"share of {name}", old=old, new=new, why="amounts are not shares of a fixed total", hold=f"{pair.name} by shares of a `total`")


def _shares(costs: Costs) -> dict[str, float]:
    counts = {name: item.mid for name, item in costs.rows_by_source.items() if item.mid is not None}
    whole = sum(counts.values())
    return {name: count / whole for name, count in counts.items()} if whole and len(counts) == len(costs.rows_by_source) else {}


# ---- stages and costs ----------------------------------------------------------------------------------------------


def _stage_diff(pair: _Pair, factors: tuple[Factor, ...]) -> StageDiff:
    if pair.a is None or pair.b is None:
        stage = pair.b or pair.a
        assert stage is not None, "a pair has one side at least"
        return StageDiff(name=stage.name, kind=stage.spec.kind, effect="added" if pair.a is None else "removed")
    old_name = pair.a.name if pair.a.name != pair.b.name else None
    effect, why = _effect(pair, pair.a, pair.b, factors)
    return StageDiff(name=pair.b.name, kind=pair.b.spec.kind, effect=effect, why=why, old_name=old_name)


def _effect(pair: _Pair, a: PlanStage, b: PlanStage, factors: tuple[Factor, ...]) -> tuple[Effect, str]:
    if a.fingerprint == b.fingerprint:
        return ("not in meaning", "") if any(moved.reason != "parent_changed" for moved in pair.moved) else ("same", "")
    own = [factor for factor in factors if pair.name in factor.stages]
    if own:
        return "changed", "; ".join(f"{factor.path} {factor.old} -> {factor.new}" for factor in own)
    parents = dict.fromkeys(moved.new.parent for moved in pair.moved if moved.new is not None and moved.new.parent)
    return "downstream", f"{', '.join(parents)} changed"


def _scratch(plan: Plan) -> Totals:
    """The whole recipe, nothing cached."""
    costs, specs = _costs(plan)
    return totals(costs, dict.fromkeys(costs, "new"), specs)


def _costs(plan: Plan) -> tuple[dict[str, Costs], dict[str, Spec]]:
    return {stage.name: stage.costs for stage in plan.stages if stage.costs is not None}, {stage.name: stage.spec for stage in plan.stages}


def _after(a: Plan, b: Plan, pairs: tuple[_Pair, ...]) -> Totals:
    """What B takes once A has been run: stages with A's fingerprints are there, and so are A's samples."""
    there = {stage.fingerprint for stage in a.stages}
    costs, specs = _costs(b)
    due = {stage.name: costs[stage.name] for stage in b.stages if stage.name in costs and stage.fingerprint not in there}
    for pair in pairs:
        if pair.b is not None and pair.b.name in due and (share := _new_samples(pair)) is not None:
            due[pair.b.name] = _part(due[pair.b.name], share)
    return totals(due, dict.fromkeys(due, "new"), specs)


def _new_samples(pair: _Pair) -> float | None:
    """The share of a ``sample`` stage that is still to be drawn where only ``n`` moved: 4 -> 8 pays for four."""
    if pair.a is None or pair.b is None or not isinstance(pair.a.spec, Sample) or not isinstance(pair.b.spec, Sample):
        return None
    matters = [moved for moved in pair.moved if moved.change().cls == "rows"]
    if [moved.path for moved in matters] != ["n"]:
        return None
    return max(0.0, 1 - pair.a.spec.n / pair.b.spec.n)


def _part(cost: Costs, share: float) -> Costs:
    update = {name: scaled(getattr(cost, name), share) for name in ("rows_out", "tokens", "seconds", "gpu_hours")}
    return cost.model_copy(update={**update, "usd": scaled_money(cost.usd, share)})


# ---- verdict -------------------------------------------------------------------------------------------------------


def _verdict(factors: tuple[Factor, ...], others: tuple[Factor, ...], moves: tuple[Move, ...], stages: tuple[StageDiff, ...]) -> str:
    redo = sum(stage.effect in ("changed", "downstream") for stage in stages)
    added, removed = (sum(stage.effect == effect for stage in stages) for effect in ("added", "removed"))
    renamed = sum(stage.old_name is not None for stage in stages)
    acting = [factor for factor in factors if not factor.note]
    shape = [f"{_n(number, 'stage')} {word}" for number, word in ((redo, "to redo"), (added, "added"), (removed, "removed")) if number]
    if not factors and not added and not removed:
        names = [f"{_n(len(others), 'setting')} that decide{'s' if len(others) == 1 else ''} no result"] if others else []
        names += [f"{_n(renamed, 'stage')} renamed"] if renamed else []
        return f"no change in meaning: {', '.join(names)}" if names else "no change"
    if not factors:
        return f"no factor; {', '.join(shape)}"
    if not acting:
        return f"no effect: {', '.join(factor.path for factor in factors)} cannot act; {', '.join(shape)}"
    named = ", ".join(f"{factor.path} {factor.old} -> {factor.new}" for factor in acting[:3]) + (", …" if len(acting) > 3 else "")
    head = f"{_n(len(acting), 'factor')} ({named})"
    tail = "clean" if not moves and len(acting) == 1 else f"not clean: {_n(len(moves), 'thing')} move{'s' if len(moves) == 1 else ''} along" if moves else "several factors at once"
    return "; ".join([f"{head}, {tail}", ", ".join(shape)]) if shape else f"{head}, {tail}"


def _n(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
