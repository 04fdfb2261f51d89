"""Numbers and texts as written to their values."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from omrlang import syntax as s
from omrlang.diagnostics import Edit, Fix, Reporter
from omrlang.source import Span

MAX_NUMBER = Decimal("1e30")
SUFFIXES: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "B": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "%": Decimal("0.01"),
}
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_NUMBER = re.compile(
    r"(?P<dollar>\$?)(?P<digits>[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?)"
    r"(?P<suffix>[A-Za-z_]*%?)(?P<unit>[\s\S]*)"
)


def number(text: str, span: Span, reporter: Reporter) -> s.Number:
    """``$1.60 / gpu_hour``, ``61_440``, ``10%``, ``16Ki tokens``; 0 after a report."""
    match = _NUMBER.fullmatch(text)
    assert match is not None, "the grammar's NUMBER and this module's disagree"
    suffix = match["suffix"]
    if suffix not in SUFFIXES:
        known = ", ".join(word for word in SUFFIXES if word)
        hint = f"suffixes are {known}; a unit stands after a space"
        reporter.error("E104", f"unknown suffix `{suffix}` on a number", span, hint)
        return s.Number(span, Decimal(0))
    digits = match["digits"].replace("_", "")
    # float first: it says at once that 1e999999999 is too big, where Decimal would try to hold it.
    if float(digits) * float(SUFFIXES[suffix]) > float(MAX_NUMBER):
        reporter.error("E107", "the number is over 1e30", span)
        return s.Number(span, Decimal(0))
    value = Decimal(digits) * SUFFIXES[suffix] if float(digits) else Decimal(0)
    unit = re.sub(r"\s*/\s*", " / ", " ".join(match["unit"].split())).strip() or None
    return s.Number(span, value, unit, suffix == "%", bool(match["dollar"]))


def unescape(text: str, span: Span, reporter: Reporter) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            at = span.start + 1 + match.start()
            hint = r"`\\` is a backslash; in \"\"\" texts a backslash stands for itself"
            place = Span(span.file, at, at + 2)
            fix = Fix(rf"write `\{match[0]}`", (Edit(place, rf"\{match[0]}"),))
            hint = hint.replace('\\"', '"')
            reporter.error("E110", f"`{match[0]}` is no escape", place, hint, fix=fix)
        return _ESCAPES.get(match[1], match[0])

    return re.sub(r"\\([\s\S])", replace, text) if "\\" in text else text
