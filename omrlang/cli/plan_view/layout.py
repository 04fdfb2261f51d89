"""Texts become lines of a width, which break where they may; cells become columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

NO_BREAK = "\u00a0"


def plural(number: int, word: str) -> str:
    """
    >>> plural(1, "stage"), plural(1200, "row")
    ('1 stage', '1,200 rows')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def listing(items: Iterable[str]) -> str:
    """Items side by side; a line may break between two of them, never inside one."""
    return " · ".join(item.replace(" ", NO_BREAK) for item in items if item)


def wrapped(content: str, width: int, indent: str = "") -> Iterable[str]:
    """Lines of at most ``width`` columns; what follows stands under what comes after ``indent``."""
    lines = textwrap.wrap(
        content,
        width=width,
        initial_indent=indent,
        subsequent_indent=" " * min(len(indent), width // 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(NO_BREAK, " ") for line in lines] or [indent.rstrip()]


def widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """Of every column as many characters as its longest cell."""
    return [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
