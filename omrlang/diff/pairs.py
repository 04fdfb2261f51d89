"""Two plans become pairs of stages, each with the leaves that differ between its sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omrlang.changes import Moved, compare
from omrlang.fingerprint import deciding_classes
from omrlang.leaves import Leaf, leaves
from omrlang.plan import Plan, PlanStage
from omrlang.types import SettingClass

CLASSES: tuple[SettingClass, ...] = ("rows", "weights", "speed", "meta")


@dataclass(frozen=True, slots=True)
class Pair:
    """One stage of both plans, or of one of them. ``moved`` are leaves that somebody set differently or that name
    something which changed; ``respelt`` those that are written in another way and come out the same."""

    a: PlanStage | None
    b: PlanStage | None
    moved: tuple[Moved, ...] = ()
    respelt: tuple[Moved, ...] = ()

    @property
    def name(self) -> str:
        stage = self.b or self.a
        assert stage is not None, "a pair has one side at least"
        return stage.name

    @property
    def own(self) -> list[Moved]:
        """Leaves that moved by themselves, not because a parent did."""
        return [moved for moved in self.moved if moved.reason != "parent_changed"]

    @property
    def is_changed(self) -> bool:
        """Whether both have the stage and it is another artifact."""
        return (
            self.a is not None and self.b is not None and self.a.fingerprint != self.b.fingerprint
        )


def pair_up(a: Plan, b: Plan, same: Mapping[str, str] | None = None) -> tuple[Pair, ...]:
    """By ``same`` (A's name of a stage of B), by name, by fingerprint, then by kind and everything but what they refer
    to; in B's order, A's rest last."""
    told = dict(same or {})
    left = {stage.name: stage for stage in a.stages}
    names = {stage.name for stage in b.stages}
    free = [s for s in a.stages if s.name not in names and s.name not in told.values()]
    chosen: dict[str, PlanStage | None] = {}
    for stage in b.stages:
        old = left.get(told.get(stage.name, stage.name))
        chosen[stage.name] = old if old is not None else _take(free, stage)
    maps = tuple({stage.name: stage.fingerprint for stage in plan.stages} for plan in (a, b))
    renamed = {old.name: new for new, old in chosen.items() if old is not None and old.name != new}
    found = [_pair(chosen[stage.name], stage, maps[0], maps[1], renamed) for stage in b.stages]
    return (*found, *(Pair(stage, None) for stage in free))


def _take(free: list[PlanStage], wanted: PlanStage) -> PlanStage | None:
    """A stage of A that is the wanted one under another name, removed from ``free``."""
    twins = [stage for stage in free if stage.fingerprint == wanted.fingerprint]
    twins += [s for s in free if s.spec.kind == wanted.spec.kind and _own(s) == _own(wanted)]
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


def _pair(
    a: PlanStage | None,
    b: PlanStage,
    names_a: Mapping[str, str],
    names_b: Mapping[str, str],
    renamed: Mapping[str, str],
) -> Pair:
    """A derived leaf that moved while what is written stands where it was is nobody's factor: it is left to the moves."""
    if a is None or a.spec.kind != b.spec.kind:
        return Pair(a, b)
    settled, written = (
        compare(
            _named(a, names_a, renamed, as_written=as_written),
            leaves(b.spec, names_b, b.revision, as_written=as_written),
            CLASSES,
        )
        for as_written in (False, True)
    )
    in_text = {moved.path for moved in written}
    in_meaning = {moved.path for moved in settled}
    return Pair(
        a,
        b,
        tuple(moved for moved in settled if moved.path in in_text),
        tuple(moved for moved in written if moved.path not in in_meaning),
    )


def _named(
    stage: PlanStage, names: Mapping[str, str], renamed: Mapping[str, str], *, as_written: bool
) -> tuple[Leaf, ...]:
    """A's leaves, where stages that were renamed go under their new names."""
    found = leaves(stage.spec, names, stage.revision, as_written=as_written)
    return tuple(leaf.under(renamed) for leaf in found)
