"""Two sets of leaves become the changes between them, each with its reason from the closed set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from omrlang.leaves import CODE, Leaf
from omrlang.plan import Change, Reason


@dataclass(frozen=True, slots=True)
class Moved:
    """One leaf that is not what it was; ``reason`` in the closed set."""

    reason: Reason
    path: str
    old: Leaf | None
    new: Leaf | None

    def change(self) -> Change:
        leaf = self.new or self.old
        assert leaf is not None, "a moved leaf is on one side at least"
        old, new = ("none" if side is None else side.shown for side in (self.old, self.new))
        return Change(path=self.path, cls=leaf.cls, old=old, new=new, reason=self.reason)


def compare(
    before: tuple[Leaf, ...], after: tuple[Leaf, ...], classes: Collection[str]
) -> list[Moved]:
    """Leaves of the classes that differ, in the order of the settings. An order of parts that alone moved is one of them."""
    old, new = ({leaf.path: leaf for leaf in side} for side in (before, after))
    revision: Reason = (
        "model_revision_changed" if "with" in _roots(after) else "source_revision_changed"
    )
    found = []
    for path in dict.fromkeys([*new, *old]):
        was, now = old.get(path), new.get(path)
        decides = any(leaf is not None and leaf.cls in classes for leaf in (was, now))
        if decides and (was is None or now is None or was.value != now.value):
            found.append(Moved(_reason(path, was, now, revision), path, was, now))
    return found or _reordered(old, new)


def _roots(found: tuple[Leaf, ...]) -> set[str]:
    return {leaf.path.split(".")[0] for leaf in found}


def _reordered(old: dict[str, Leaf], new: dict[str, Leaf]) -> list[Moved]:
    """Equal parts in another order."""
    was, now = (
        [leaf for leaf in side.values() if leaf.path.startswith("from.")] for side in (old, new)
    )
    if [leaf.path for leaf in was] == [leaf.path for leaf in now]:
        return []
    return [Moved("param_changed", "from (order)", _in_order(was), _in_order(now))]


def _in_order(parts: list[Leaf]) -> Leaf:
    return replace(parts[0], shown=", ".join(leaf.path.removeprefix("from.") for leaf in parts))


def _reason(path: str, was: Leaf | None, now: Leaf | None, revision: Reason) -> Reason:
    if path == "version" or path.endswith(CODE):
        return "code_version_changed"
    if path == "revision":
        return revision
    if (
        was is not None
        and now is not None
        and was.parent is not None
        and (was.parent, was.shown) == (now.parent, now.shown)
    ):
        return "parent_changed"
    return "param_changed"
