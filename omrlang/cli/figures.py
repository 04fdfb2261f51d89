"""Numbers with a unit and an origin become short text: ``3,000 d``, ``12 min a``, ``$6,378``."""

from __future__ import annotations

from omrlang.plan import Estimate, Input, Money, Origin

LETTER: dict[Origin, str] = {
    "measured": "m",
    "calibrated": "c",
    "formula": "f",
    "declared": "d",
    "assumed": "a",
    "unknown": "?",
}


def count(value: float) -> str:
    """
    >>> count(3000), count(827_440), count(8_450_000_000), count(0.4)
    ('3,000', '827k', '8.45G', '0.4')
    """
    if value < 10 and value != round(value):
        return f"{value:.1f}"
    if value < 100_000:
        return f"{value:,.0f}"
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:,.0f}"


def rows(value: float) -> str:
    """Rows are counted out up to a million."""
    return f"{value:,.0f}" if value < 1e6 else count(value)


def seconds(value: float) -> str:
    """
    >>> seconds(0.2), seconds(42.4), seconds(600), seconds(7_500), seconds(200_000)
    ('<1 s', '42 s', '10 min', '2.1 h', '56 h')
    """
    if value < 1:
        return "<1 s" if value else "0 s"
    if value < 90:
        return f"{value:.0f} s"
    if value < 5400:
        return f"{value / 60:.0f} min"
    hours = value / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def gib(value: float) -> str:
    """Bytes in GiB, two digits that mean something."""
    amount = value / 2**30
    return f"{amount:.2f}" if amount < 1 else f"{amount:.1f}" if amount < 100 else f"{amount:,.0f}"


def dollars(value: float) -> str:
    """
    >>> dollars(0), dollars(12.5), dollars(6378.4)
    ('$0', '$12.50', '$6,378')
    """
    return "$0" if value == 0 else f"${value:,.2f}" if value < 100 else f"${value:,.0f}"


def text(item: Estimate | Money) -> str:
    """The middle in the form of its unit, without the origin; ``?`` where it is unknown."""
    if item.mid is None:
        return "?"
    return _formed(float(item.mid), item.unit)


def _formed(value: float, unit: str) -> str:
    match unit:
        case "s":
            return seconds(value)
        case "bytes":
            return f"{gib(value)} GiB"
        case "USD":
            return dollars(value)
        case "rows" | "rollouts":
            return rows(value)
        case _:
            return count(value)


def whole(item: Estimate | Money | Input) -> str:
    """Value, unit and range to three digits, as a formula's reader wants them: ``0.34 (0.28 – 0.4)``, ``9.79G tokens``.

    >>> from omrlang.plan import Input
    >>> whole(Input("used", 0.28, 0.34, 0.4, "", "assumed"))
    '0.34 (0.28 – 0.4)'
    >>> whole(Input("gpus", 32, 32, 32, "GPUs", "declared"))
    '32 GPUs'
    """
    if item.lo is None or item.mid is None or item.hi is None:
        return "unknown"
    lo, mid, hi = (_digits(float(end), item.unit) for end in (item.lo, item.mid, item.hi))
    unit = "" if item.unit in ("s", "bytes", "USD", "") else f" {item.unit}"
    return f"{mid}{unit}" if lo == hi else f"{mid}{unit} ({lo} – {hi})"


def _digits(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{value:.3g} s"
    if unit == "bytes" and value < 2**20:
        return f"{value:,.4g} bytes"
    if unit in ("s", "bytes", "USD"):
        return _formed(value, unit)
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    if value == round(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if abs(value) < 1000 else count(value)


def marked(item: Estimate | Money) -> str:
    """With the origin's letter: ``3,000 d``."""
    return "?" if item.mid is None else f"{text(item)} {LETTER[item.origin]}"


def spread(item: Estimate | Money) -> str:
    """With its range where that says something: ``12 min (4 – 36 min)``."""
    if item.mid is None or item.lo is None or item.hi is None:
        return "?"
    lo, hi = _formed(float(item.lo), item.unit), _formed(float(item.hi), item.unit)
    if lo == hi:
        return text(item)
    unit = lo.rpartition(" ")[2]
    same = " " in lo and " " in hi and hi.rpartition(" ")[2] == unit
    return f"{text(item)} ({lo.rpartition(' ')[0] if same else lo} – {hi})"
