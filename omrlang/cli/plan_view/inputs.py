"""What a plan reads from outside becomes a table: each input with its rows, its revision and how it drifted."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.cli.plan_view.layout import listing, widths, wrapped
from omrlang.plan import Drift, Plan, PlanPin

SHORT = 12


def input_lines(plan: Plan, width: int) -> Iterator[str]:
    """Those that are pinned or drifted, a line each; those that are not pinned together."""
    shown = [pin for pin in plan.pins if pin.revision or pin.drift]
    loose = [pin.what for pin in plan.pins if pin not in shown]
    if plan.pins:
        yield f"Inputs   {_counted(plan)}"
    cells = [[pin.what, rows(pin), revision(pin)] for pin in shown]
    sizes = widths(cells) if cells else []
    for pin, line in zip(shown, cells, strict=True):
        what, count, mark = (f"{cell:<{size}}" for cell, size in zip(line, sizes, strict=True))
        yield from wrapped(drifted(pin) or " ", width, f"  {what}  {count}  {mark}  ")
    if loose:
        more = f" and {len(loose) - 3} more" if len(loose) > 3 else ""
        yield from wrapped(f"not pinned: {', '.join(loose[:3])}{more}", width, "  ")


def _counted(plan: Plan) -> str:
    moved = sum(bool(pin.drift) for pin in plan.pins)
    loose = sum(pin.revision is None for pin in plan.pins)
    parts = [f"{len(plan.pins)} read from outside"]
    parts += [f"{moved} drifted"] if moved else []
    parts += [f"{loose} not pinned"] if loose else []
    return listing(parts).replace("\u00a0", " ")


def rows(pin: PlanPin) -> str:
    """``1,537 rows``; empty where only a reader can count them."""
    return "" if pin.num_rows is None else f"{pin.num_rows:,} rows"


def revision(pin: PlanPin) -> str:
    """The start of a hash; a name of a revision whole."""
    return "not pinned" if pin.revision is None else _short(pin.revision)


def drifted(pin: PlanPin) -> str:
    """How the input is not what it was; empty where it is."""
    return "; ".join(_drift(item) for item in pin.drift)


def _drift(item: Drift) -> str:
    since = "the last run had" if item.since == "last run" else "the lock has"
    return f"{since} {_short(item.before)}"


def _short(mark: str) -> str:
    return mark[:SHORT] if len(mark) in (40, 64) else mark
