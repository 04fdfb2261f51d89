"""Pairs of stages become what somebody set differently in them: factors, each counted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omrlang.changes import Moved
from omrlang.diff.asked import other_model
from omrlang.diff.idle import why_idle
from omrlang.diff.origins import Origins
from omrlang.diff.pairs import CLASSES, Pair
from omrlang.diff.report import Factor
from omrlang.fingerprint import deciding_classes
from omrlang.types import SettingClass

PER_BRANCH = frozenset({"clip"})
"""Arguments whose scale belongs to the algorithm, so that they change with it as one factor."""
UNPUBLISHED = "unpublished"
EITHER = ("steps", "epochs")
"""Settings of which a stage has one: where the other takes its place, one thing was decided."""
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Factors:
    """Those that decide results, those that do not, and how many settings are the same in both."""

    deciding: tuple[Factor, ...]
    others: tuple[Factor, ...]
    num_same: int


def find_factors(all_pairs: tuple[Pair, ...], a: Origins, b: Origins) -> Factors:
    found: dict[tuple[str, str, str, bool], Factor] = {}
    num_same = 0
    for pair in all_pairs:
        if pair.a is None or pair.b is None:
            continue
        matters = deciding_classes(pair.b.spec)
        num_same += pair.num_settings - len(pair.moved)
        for factor in _of_pair(pair, a, b):
            key = (factor.path, factor.old, factor.new, factor.cls in matters)
            known = found.get(key)
            found[key] = factor if known is None else _shared(known, factor)
    return Factors(
        tuple(factor for (*_, matters), factor in found.items() if matters),
        tuple(factor for (*_, matters), factor in found.items() if not matters),
        num_same,
    )


def _shared(known: Factor, factor: Factor) -> Factor:
    return known.model_copy(update={"stages": (*known.stages, *factor.stages)})


def _of_pair(pair: Pair, a: Origins, b: Origins) -> Iterator[Factor]:
    spelt = [m for m in pair.respelt if m.reason != "parent_changed"]
    otherwise = (_factor(pair, m, "meta", "written in another way, the same value") for m in spelt)
    for factor in (*_folded(pair), *otherwise):
        paths = EITHER if factor.path == EITHER[0] else (factor.path,)
        yield factor.model_copy(
            update={
                "old_at": a.place(pair.a.name if pair.a else pair.name, paths),
                "new_at": b.place(pair.name, paths),
            }
        )


def _folded(pair: Pair) -> Iterator[Factor]:
    """The stage's own changes; what belongs to one choice (a branch, a model, a prompt, a row set) is one factor."""
    own, (swapped, rewritten) = pair.own, (_swapped_part(pair), _rewritten_parts(pair))
    heads = [moved for moved in own if _is_head(moved, own)]
    either = _either(own)
    for moved in own:
        if moved in swapped or moved in rewritten or moved in either:
            continue
        if not any(_belongs(moved, head) for head in heads):
            parts = [other for other in own if _has_arguments(moved) and _belongs(other, moved)]
            yield _factor(pair, moved, note=_with_it(moved, parts))
    if either:
        yield _in_its_place(pair, either)
    if swapped:
        old, new = (moved.path.removeprefix("from.") for moved in swapped)
        yield _factor(pair, swapped[1]).model_copy(update={"path": "from", "old": old, "new": new})
    elif rewritten:
        yield _rewriting(pair, rewritten)


def _is_branch(moved: Moved) -> bool:
    return any(side is not None and side.branch for side in (moved.old, moved.new))


def _has_arguments(moved: Moved) -> bool:
    """Whether it is a choice that is written as a call; of a model there would be too much to tell."""
    return _is_branch(moved) and moved.path.partition(".")[0] != "with"


def _with_it(head: Moved, parts: list[Moved]) -> str:
    """What a changed branch brings along or takes away."""
    paths = [part.path for part in parts]
    whole = [p for p in parts if not any(p.path.startswith(f"{path}.") for path in paths)]
    changes = [part.change() for part in whole]
    said = [
        f"{c.path.removeprefix(f'{head.path}.')} {c.old} -> {c.new}"
        for c in changes
        if c.old != c.new
    ]
    more = [f"{len(said) - MAX_NAMED} more"] if len(said) > MAX_NAMED else []
    return f"with {', '.join([*said[:MAX_NAMED], *more])}" if said else ""


def _either(own: list[Moved]) -> list[Moved]:
    """``steps`` and ``epochs`` where one took the other's place."""
    found = [moved for moved in own if moved.path in EITHER]
    texts = {side for moved in found for side in (moved.change().old, moved.change().new)}
    return found if len(found) == len(EITHER) and "none" in texts else []


def _in_its_place(pair: Pair, either: list[Moved]) -> Factor:
    """One factor, told as steps: ``1_232 -> 15 epochs``."""
    changes = [moved.change() for moved in either]
    old, new = (
        next(_told_in(c.path, getattr(c, side)) for c in changes if getattr(c, side) != "none")
        for side in ("old", "new")
    )
    return _factor(pair, either[0]).model_copy(update={"path": EITHER[0], "old": old, "new": new})


def _told_in(path: str, text: str) -> str:
    return text if path == EITHER[0] else f"{text} {path}"


def _parts(pair: Pair) -> list[Moved]:
    return [moved for moved in pair.own if moved.path.startswith("from.")]


def _swapped_part(pair: Pair) -> list[Moved]:
    """One part of a list that another took the place of, with the same amount: first the old, then the new."""
    gone = [moved for moved in _parts(pair) if moved.new is None]
    come = [moved for moved in _parts(pair) if moved.old is None]
    if len(gone) != 1 or len(come) != 1:
        return []
    was, now = gone[0].old, come[0].new
    is_mix = pair.b is not None and pair.b.spec.kind == "mix"
    alike = was is not None and now is not None and (not is_mix or was.shown == now.shown)
    return [gone[0], come[0]] if alike else []


def _rewritten_parts(pair: Pair) -> list[Moved]:
    """Shares hang together, since they sum to one: several that moved are one decision, and so is their total."""
    both = [moved for moved in _parts(pair) if moved.old is not None and moved.new is not None]
    shares = [
        m for m in both if any(s is not None and s.shown.endswith("%") for s in (m.old, m.new))
    ]
    total = [moved for moved in pair.own if moved.path == "total"]
    return [*both, *total] if len(shares) > 1 else []


def _rewriting(pair: Pair, parts: list[Moved]) -> Factor:
    changes = [moved.change() for moved in parts]
    names = [change.path.removeprefix("from.") for change in changes]
    old, new = (
        ", ".join(
            f"{name} {text}"
            for name, text in zip(names, (getattr(c, side) for c in changes), strict=True)
        )
        for side in ("old", "new")
    )
    return _factor(pair, parts[0]).model_copy(update={"path": "from", "old": old, "new": new})


def _is_head(moved: Moved, own: list[Moved]) -> bool:
    """A choice that changed, came or went: another branch, or a model or prompt of another name and other content."""
    if moved.path in ("with", "from") or _is_branch(moved):
        return True
    if None in (moved.old, moved.new) and any(_inside(moved, other) for other in own):
        return True
    root, _, last = moved.path.rpartition(".")
    return last == "name" and any(
        other.path.startswith(f"{root}.") and other is not moved for other in own
    )


def _inside(whole: Moved, part: Moved) -> bool:
    return part.path.startswith(f"{whole.path}.")


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


def _told(old: str, new: str, parts: list[Moved]) -> dict[str, str]:
    """A group in braces that comes or goes, by its settings."""
    inside = [part.change() for part in parts]
    sides = {"old": old, "new": new}
    for side in sides:
        texts = [(c.path.rpartition(".")[2], getattr(c, side)) for c in inside]
        given = [f"{name} = {text}" for name, text in texts if text != "none"]
        if sides[side] == "none" and given:
            sides[side] = f"{{ {', '.join(given)} }}"
    return sides


def _factor(pair: Pair, moved: Moved, cls: SettingClass | None = None, note: str = "") -> Factor:
    """The change as it is told, its class, and whether it can act at all."""
    change = moved.change()
    path = change.path.removesuffix(".name")
    if path == "with":
        named = next((item.change() for item in pair.moved if item.path == "with.name"), change)
        old = change.old if named.old == "none" else named.old
        new = change.new if named.new == "none" else named.new
        change = change.model_copy(update={"old": old, "new": new})
    if path != change.path and len(pair.moved) > 1:
        inside = [m.change().cls for m in pair.moved if m.path.startswith(f"{path}.")]
        change = change.model_copy(update={"cls": min(inside, key=CLASSES.index)})
    elif parts := [item for item in pair.moved if _inside(moved, item)]:
        change = change.model_copy(update=_told(change.old, change.new, parts))
    idle = "" if cls else why_idle(pair, moved)
    is_open = UNPUBLISHED in (change.old, change.new)
    if is_open and not idle:
        note = "nobody published the value, so nobody knows whether it differs"
    path, old, new = other_model(pair, moved) or (path, change.old, change.new)
    return Factor(
        path=path,
        cls=cls or change.cls,
        old=old,
        new=new,
        stages=(pair.name,),
        role="idle" if idle else "open" if is_open else "acts",
        note=idle or note,
    )
