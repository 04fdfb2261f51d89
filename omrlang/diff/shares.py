"""A mix of two plans becomes the shares of its parts that moved, and the amounts that would hold them."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diff.pairs import Pair
from omrlang.diff.quantities import EVEN
from omrlang.diff.report import Hold, Move
from omrlang.plan import PlanStage
from omrlang.schema import Mix
from omrlang.shown import shown_amount
from omrlang.types import construct

NOTICEABLE_SHARE = 0.01
"""Of the whole mix: a move under one point is not told."""


def share_moves(pair: Pair) -> Iterator[Move]:
    """Each part whose amount nobody changed and whose share moved."""
    old, new = counts(pair.a), counts(pair.b)
    both = [name for name in new if name in old]
    if not both or not sum(old.values()) or not sum(new.values()):
        return
    written = written_parts(pair)
    hold = _hold(pair, old, new, both, written)
    for name in both:
        before, after = old[name] / sum(old.values()), new[name] / sum(new.values())
        if name not in written and abs(after - before) >= NOTICEABLE_SHARE:
            yield construct(
                Move,
                stage=pair.name,
                quantity="share",
                subject=name,
                old=before,
                new=after,
                old_text=f"{before:.1%}",
                new_text=f"{after:.1%}",
                why=_why(old, new, written),
                hold=hold,
            )


def shares_are_held(pair: Pair) -> bool:
    """Whether amounts were changed so that every share stays, while the row sets themselves changed."""
    old, new = counts(pair.a), counts(pair.b)
    if (
        not _other_rows(pair)
        or old.keys() != new.keys()
        or not sum(old.values())
        or not sum(new.values())
    ):
        return False
    whole = sum(old.values()), sum(new.values())
    return all(abs(old[n] / whole[0] - new[n] / whole[1]) < NOTICEABLE_SHARE for n in old)


def _other_rows(pair: Pair) -> bool:
    """Whether a part is another artifact than before, whatever its amount."""
    parts = [m for m in pair.moved if m.path.startswith("from.") and m.old and m.new]
    values = [(moved.old and moved.old.value, moved.new and moved.new.value) for moved in parts]
    return any(
        isinstance(was, list) and isinstance(now, list) and was[0] != now[0] for was, now in values
    )


def written_parts(pair: Pair) -> set[str]:
    """Parts whose amount somebody changed; all of them where the list or its total was rewritten."""
    paths = [moved.path for moved in pair.own]
    if "total" in paths:
        return set(counts(pair.b))
    return {path.removeprefix("from.") for path in paths if path.startswith("from.")}


def counts(stage: PlanStage | None) -> dict[str, float]:
    """Rows of each part as the plan expects them; empty where any is unknown."""
    if stage is None or stage.costs is None or not isinstance(stage.spec, Mix):
        return {}
    found = {
        name.removeprefix("from "): item.mid
        for name, item in stage.costs.extra.items()
        if name.startswith("from ")
    }
    known = {name: count for name, count in found.items() if count is not None}
    return known if len(known) == len(found) else {}


def _why(old: dict[str, float], new: dict[str, float], written: set[str]) -> str:
    come, gone = [n for n in new if n not in old], [n for n in old if n not in new]
    if gone:
        return f"there is no {', '.join(gone)} any more"
    if come:
        return f"there is {', '.join(come)} now"
    moved = [n for n in new if abs(new[n] - old[n]) > EVEN * old[n]]
    if set(moved) & written:
        return f"{', '.join(n for n in moved if n in written)} has another amount"
    less = all(new[n] < old[n] for n in moved)
    amounts = "fewer" if less else "more" if all(new[n] > old[n] for n in moved) else "other"
    return f"{', '.join(moved)} gives {amounts} rows, and amounts are no shares of a total"


def _hold(
    pair: Pair, old: dict[str, float], new: dict[str, float], both: list[str], written: set[str]
) -> Hold | None:
    """All parts cut alike, as far as the part that lost most; None where a part came or went."""
    if pair.b is None or not isinstance(spec := pair.b.spec, Mix):
        return None
    if old.keys() != new.keys() or written or spec.total is not None or not all(old.values()):
        return None
    factor = min([1.0, *(new[name] / old[name] for name in both)])
    parts = []
    for part in spec.parts:
        wanted = old[part.rows] * factor
        is_whole = abs(new[part.rows] - wanted) <= EVEN * wanted
        text = shown_amount(part.amount) if is_whole else f"{round(wanted):_}"
        parts.append(f"{part.rows}: {text}")
    drops = spec.expect is not None
    return construct(
        Hold, stage=pair.name, key="from", value=f"[{', '.join(parts)}]", drops_expect=drops
    )
