"""Two plans become pairs of stages, each with the leaves that differ between its sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from omrlang.changes import Moved, compare
from omrlang.fingerprint import deciding_classes
from omrlang.leaves import Leaf, leaves
from omrlang.plan import Plan, PlanStage
from omrlang.settle import settle
from omrlang.types import SettingClass

CLASSES: tuple[SettingClass, ...] = ("rows", "weights", "speed", "meta")


@dataclass(frozen=True, slots=True)
class Pair:
    """One stage of both plans, or of one of them. ``moved`` are leaves that somebody set differently or that name
    something which changed; ``respelt`` those that are written in another way and come out the same.

    ``told_apart``: in or above it one side alone declares how long texts are or how large images, so that what the two
    plans take a row to be long does not compare. ``num_settings``: how many leaves the stage has in B."""

    a: PlanStage | None
    b: PlanStage | None
    moved: tuple[Moved, ...] = ()
    respelt: tuple[Moved, ...] = ()
    told_apart: bool = False
    num_settings: int = 0

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
    """By ``same`` (A's name of a stage of B), by name, by fingerprint, by kind and everything but what they refer to, and
    what the same clause of a pair names; in B's order, A's rest last."""
    told = dict(same or {})
    left = {stage.name: stage for stage in a.stages}
    names = {stage.name for stage in b.stages}
    free = [s for s in a.stages if s.name not in names and s.name not in told.values()]
    chosen: dict[str, PlanStage | None] = {}
    for stage in b.stages:
        old = left.get(told.get(stage.name, stage.name))
        chosen[stage.name] = old if old is not None else _take(free, stage)
    while found := _named_alike(b.stages, chosen, free):
        chosen |= found
        free = [stage for stage in free if stage not in found.values()]
    maps = tuple({stage.name: stage.fingerprint for stage in plan.stages} for plan in (a, b))
    renamed = {old.name: new for new, old in chosen.items() if old is not None and old.name != new}
    pairs = [_pair(chosen[stage.name], stage, maps[0], maps[1], renamed) for stage in b.stages]
    return (*_told_apart(pairs), *(Pair(stage, None) for stage in free))


def _told_apart(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The pairs with those marked whose rows two declarations make long or short."""
    apart: set[str] = set()
    for pair in pairs:
        assert pair.b is not None, "only what B has has a place in its order"
        alone = pair.a is not None and _declared(pair.a) != _declared(pair.b)
        if alone or apart & set(pair.b.parents):
            apart.add(pair.name)
        yield replace(pair, told_apart=pair.name in apart)


def _declared(stage: PlanStage) -> list[bool]:
    found = stage.spec.assume
    return [item is not None for item in (found.response, found.prompt, found.image)]


def _take(free: list[PlanStage], wanted: PlanStage) -> PlanStage | None:
    """A stage of A that is the wanted one under another name, removed from ``free``."""
    twins = [stage for stage in free if stage.fingerprint == wanted.fingerprint]
    twins += [s for s in free if s.spec.kind == wanted.spec.kind and _own(s) == _own(wanted)]
    if not twins:
        return None
    free.remove(twins[0])
    return twins[0]


def _named_alike(
    stages: Sequence[PlanStage], chosen: Mapping[str, PlanStage | None], free: Sequence[PlanStage]
) -> dict[str, PlanStage | None]:
    """Stages that only one side has by name, where the same clause of a pair names one and the other, and no other pair
    says otherwise: a stage that was renamed and changed."""
    left = {stage.name: stage for stage in free}
    kinds = {stage.name: stage.spec.kind for stage in stages if chosen[stage.name] is None}
    told = {
        (old, new)
        for stage in stages
        if (was := chosen[stage.name]) is not None
        for old, new in zip(_clauses(was), _clauses(stage), strict=True)
        if old in left and new in kinds and left[old].spec.kind == kinds[new]
    }
    olds, news = [old for old, _ in told], [new for _, new in told]
    return {new: left[old] for old, new in told if olds.count(old) == 1 and news.count(new) == 1}


def _clauses(stage: PlanStage) -> tuple[str | None, str | None]:
    """The stage that is trained or asked, and the one whose rows are taken, where there is one."""
    rows = getattr(stage.spec, "rows", None)
    return getattr(getattr(stage.spec, "model", None), "stage", None), (
        rows if isinstance(rows, str) else None
    )


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

    def moved(*, as_written: bool) -> tuple[list[Moved], int]:
        new = leaves(b.spec, names_b, b.revision, as_written=as_written)
        return compare(_named(a, names_a, renamed, as_written=as_written), new, CLASSES), len(new)

    settled, number = moved(as_written=False)
    derives = settle(a.spec) is not a.spec or settle(b.spec) is not b.spec
    written = moved(as_written=True)[0] if derives else settled
    in_text = {item.path for item in written}
    in_meaning = {item.path for item in settled}
    return Pair(
        a,
        b,
        tuple(item for item in settled if item.path in in_text),
        tuple(item for item in written if item.path not in in_meaning),
        num_settings=number,
    )


def _named(
    stage: PlanStage, names: Mapping[str, str], renamed: Mapping[str, str], *, as_written: bool
) -> tuple[Leaf, ...]:
    """A's leaves, where stages that were renamed go under their new names."""
    found = leaves(stage.spec, names, stage.revision, as_written=as_written)
    return tuple(leaf.under(renamed) for leaf in found)
