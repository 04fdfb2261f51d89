"""Two plans become pairs of stages, and what somebody set differently in them: factors, each counted once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from omrlang.changes import Moved, compare
from omrlang.fingerprint import deciding_classes
from omrlang.leaves import leaves
from omrlang.plan import Plan, PlanStage
from omrlang.schema import Rl
from omrlang.settle import num_devices, settled_amount
from omrlang.types import Frozen, SettingClass

CLASSES: tuple[SettingClass, ...] = ("rows", "weights", "speed", "meta")
PER_BRANCH = frozenset({"clip"})
"""Arguments whose scale belongs to the algorithm, so that they change with it as one factor."""


class Factor(Frozen):
    """One thing that somebody set differently; ``stages`` share it. ``note`` says where it cannot act."""

    path: str
    cls: SettingClass
    old: str
    new: str
    stages: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """One stage of both plans, or of one of them."""

    a: PlanStage | None
    b: PlanStage | None
    moved: tuple[Moved, ...] = ()

    @property
    def name(self) -> str:
        stage = self.b or self.a
        assert stage is not None, "a pair has one side at least"
        return stage.name


def pair_up(a: Plan, b: Plan) -> tuple[Pair, ...]:
    """By name, then by fingerprint, then by kind and everything but what they refer to; in B's order, A's rest last."""
    left = {stage.name: stage for stage in a.stages}
    names = {stage.name for stage in b.stages}
    free = [stage for stage in a.stages if stage.name not in names]
    chosen: dict[str, PlanStage | None] = {}
    for stage in b.stages:
        chosen[stage.name] = left[stage.name] if stage.name in left else _take(free, stage)
    maps = (
        {stage.name: stage.fingerprint for stage in a.stages},
        {stage.name: stage.fingerprint for stage in b.stages},
    )
    renamed = {old.name: new for new, old in chosen.items() if old is not None and old.name != new}
    found = [
        Pair(chosen[stage.name], stage, _moved(chosen[stage.name], stage, *maps, renamed))
        for stage in b.stages
    ]
    return (*found, *(Pair(stage, None) for stage in free))


def _take(free: list[PlanStage], wanted: PlanStage) -> PlanStage | None:
    """A stage of A that is the wanted one under another name, removed from ``free``."""
    twins = [stage for stage in free if stage.fingerprint == wanted.fingerprint]
    twins += [
        stage
        for stage in free
        if stage.spec.kind == wanted.spec.kind and _own(stage) == _own(wanted)
    ]
    if not twins:
        return None
    free.remove(twins[0])
    return twins[0]


def _own(stage: PlanStage) -> list[tuple[str, str]]:
    """What a stage says itself, apart from the stages that it names and its own name."""
    nothing = dict.fromkeys(stage.parents, "")
    found = leaves(stage.spec, nothing, stage.revision)
    matters = deciding_classes(stage.spec)
    return sorted(
        (leaf.key, str(leaf.value)) for leaf in found if leaf.cls in matters and leaf.parent is None
    )


def _moved(
    a: PlanStage | None,
    b: PlanStage,
    names_a: Mapping[str, str],
    names_b: Mapping[str, str],
    renamed: Mapping[str, str],
) -> tuple[Moved, ...]:
    """Every leaf that differs, whatever its class; what was renamed goes under its new name."""
    if a is None or a.spec.kind != b.spec.kind:
        return ()
    before = tuple(leaf.under(renamed) for leaf in leaves(a.spec, names_a, a.revision))
    return tuple(compare(before, leaves(b.spec, names_b, b.revision), CLASSES))


def find_factors(all_pairs: tuple[Pair, ...]) -> tuple[tuple[Factor, ...], tuple[Factor, ...], int]:
    """Those that decide results, those that do not, and how many settings are the same in both."""
    found: dict[tuple[str, str, str, bool], Factor] = {}
    same = 0
    for pair in all_pairs:
        if pair.a is None or pair.b is None:
            continue
        matters = deciding_classes(pair.b.spec)
        same += len(leaves(pair.b.spec, dict.fromkeys(pair.b.parents, ""), None)) - len(pair.moved)
        for factor in _folded(pair):
            key = (factor.path, factor.old, factor.new, factor.cls in matters)
            known = found.get(key)
            found[key] = (
                factor
                if known is None
                else known.model_copy(update={"stages": (*known.stages, *factor.stages)})
            )
    deciding = tuple(factor for (_, _, _, matters), factor in found.items() if matters)
    return (
        deciding,
        tuple(factor for (_, _, _, matters), factor in found.items() if not matters),
        same,
    )


def _folded(pair: Pair) -> Iterator[Factor]:
    """The stage's own changes; what belongs to one choice (a branch, a model, a prompt) is one factor."""
    own = [moved for moved in pair.moved if moved.reason != "parent_changed"]
    heads = [moved for moved in own if _is_head(moved, own)]
    for moved in own:
        if not any(_belongs(moved, head) for head in heads):
            yield _factor(pair, moved)


def _is_head(moved: Moved, own: list[Moved]) -> bool:
    """A choice that changed, came or went: another branch, or a model or prompt of another name and other content."""
    if moved.path in ("with", "from") or any(
        side is not None and side.branch for side in (moved.old, moved.new)
    ):
        return True
    root, _, last = moved.path.rpartition(".")
    return last == "name" and any(
        other.path.startswith(f"{root}.") and other is not moved for other in own
    )


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


def _factor(pair: Pair, moved: Moved) -> Factor:
    change = moved.change()
    path = change.path.removesuffix(".name")
    cls = change.cls
    if path == "with":
        named = next((item.change() for item in pair.moved if item.path == "with.name"), change)
        old, new = (
            (change.old if named.old == "none" else named.old),
            (change.new if named.new == "none" else named.new),
        )
        change = change.model_copy(update={"old": old, "new": new})
    if path != change.path and len(pair.moved) > 1:
        cls = _strongest(
            [item.change().cls for item in pair.moved if item.path.startswith(f"{path}.")]
        )
    return Factor(
        path=path,
        cls=cls,
        old=change.old,
        new=change.new,
        stages=(pair.name,),
        note=_no_effect(pair, moved),
    )


def _strongest(classes: list[SettingClass]) -> SettingClass:
    return min(classes, key=CLASSES.index)


def _no_effect(pair: Pair, moved: Moved) -> str:
    """Why a setting of class ``weights`` cannot act under these plans."""
    if moved.path != "algorithm.clip" or pair.a is None or pair.b is None:
        return ""
    if all(isinstance(stage.spec, Rl) and _one_update(stage.spec) for stage in (pair.a, pair.b)):
        return (
            "no effect: one update for each rollout batch, so the ratio is 1 and nothing is clipped"
        )
    return ""


def _one_update(spec: Rl) -> bool:
    devices = num_devices(spec)
    return spec.minibatch is None or settled_amount(spec.minibatch, devices) == settled_amount(
        spec.batch, devices
    )
