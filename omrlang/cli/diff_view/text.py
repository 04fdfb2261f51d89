"""Sections of a diff become the text that a person reads: verdict, sections, verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omrlang.cli.diff_view.sections import Section, diff_sections, study_sections
from omrlang.cli.plan_view.layout import wrapped
from omrlang.diff.report import Diff, Study

MIN_LAST = 28
"""Columns that the last cell of a line needs beside the others."""


def diff_text(diff: Diff, width: int) -> str:
    """The whole view of two for a terminal of so many columns."""
    width = max(60, min(width, 120))
    names = [*wrapped(diff.a, width, "A  "), *wrapped(diff.b, width, "B  ")]
    foot = [f"Same in both: {diff.num_same} settings."] if diff.factors or diff.others else []
    sections = [names, *_sections(tuple(diff_sections(diff)), width), foot]
    return _framed(diff.verdict.text, sections, width)


def study_text(study: Study, width: int) -> str:
    """The whole view of several."""
    width = max(60, min(width, 120))
    return _framed(study.design, _sections(tuple(study_sections(study)), width), width)


def _framed(verdict: str, sections: Sequence[Sequence[str]], width: int) -> str:
    """The verdict first and last."""
    head = wrapped(verdict, width)
    return "\n\n".join("\n".join(part) for part in (head, *sections, head) if part) + "\n"


def _sections(sections: Sequence[Section], width: int) -> list[list[str]]:
    return [list(_section(section, width)) for section in sections]


def _section(section: Section, width: int) -> Iterator[str]:
    if section.title:
        yield from wrapped(section.title, width)
    table = [section.header, *section.rows] if section.header else list(section.rows)
    yield from _table(table, width, numbers=section.numbers)
    for line in section.lines:
        yield from wrapped(line.lstrip(), width, "  " + " " * (len(line) - len(line.lstrip())))


def _table(rows: Sequence[tuple[str, ...]], width: int, *, numbers: bool) -> Iterator[str]:
    """Columns under one another as far as they fit; else each line runs on."""
    if not rows:
        return
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = sum(size + 2 for size in sizes[:-1])
    last = sizes[-1] if numbers else MIN_LAST
    if left + 2 + last > width:
        yield from _run_on(rows, width)
        return
    for row in rows:
        cells = [f"{cell:<{size}}" for cell, size in zip(row, sizes, strict=True)]
        if numbers:
            cells[1:] = [f"{cell:>{size}}" for cell, size in zip(row[1:], sizes[1:], strict=True)]
        yield from wrapped(
            row[-1] if not numbers else cells[-1].strip() or " ",
            width,
            _lead(cells, numbers=numbers, last=row[-1]),
        )


def _lead(cells: Sequence[str], *, numbers: bool, last: str) -> str:
    lead = "  " + "".join(f"{cell}  " for cell in cells[:-1])
    return lead + " " * (len(cells[-1]) - len(last)) if numbers else lead


def _run_on(rows: Sequence[tuple[str, ...]], width: int) -> Iterator[str]:
    """A line for each row; in a table with a header every cell is named."""
    for row in rows:
        yield from wrapped("  ".join(cell for cell in row if cell), width, "  ")
