"""Scores to a table in the terminal or JSON lines: what was measured here beside what was published, each marked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omr_runtime.report.tournament import Cell, Line, Tournament
    from omrlang.published import Table


def print_tournament(
    state: Path, target: str | None, results: Sequence[Path], as_json: bool
) -> None:
    """What ran last under ``target``, and what result files of official programs hold. RunError where there is nothing."""
    from omr_runtime.report.official import official_line
    from omr_runtime.report.ran import find
    from omr_runtime.report.tournament import tournament

    _print(tournament(find(state, target), [official_line(path) for path in results]), as_json)


def paired_records(state: Path, target: str | None) -> list[dict[str, object]]:
    """Each pair of evals with common questions; differences in points. RunError where nothing was run."""
    from omr_runtime.report.comparison import versus
    from omr_runtime.report.ran import find

    return [
        {
            "a": it.a,
            "b": it.b,
            "same_items": it.found.num_items,
            "b_minus_a": round(100 * it.found.difference, 1),
            "lo": round(100 * it.found.lo, 1),
            "hi": round(100 * it.found.hi, 1),
            "b_better_on": it.found.wins,
            "a_better_on": it.found.losses,
        }
        for it in versus(find(state, target))
    ]


def print_published(name: str | None, as_json: bool) -> int:
    """One table, or which tables there are; the exit code."""
    from omr_runtime.report.tournament import Tournament, published_lines
    from omrlang.diagnostics import did_you_mean
    from omrlang.published import tables

    found = {table.name: table for table in tables()}
    if name is None:
        print("\n".join(f"{key}  {_about(table)}" for key, table in found.items()))
        return 0
    if name not in found:
        hint = did_you_mean(name, list(found)) or f"there are {', '.join(found)}"
        print(f"error: no published table `{name}`; {hint}", file=sys.stderr)
        return 1
    table = found[name]
    lines = tuple(published_lines(table, table.columns))
    how = tuple(f"{column} is the {text}" for column, text in table.measure.items())
    _print(Tournament(table.columns, lines, (*how, *([table.note] if table.note else []))), as_json)
    return 0


def _about(table: Table) -> str:
    return f"{table.title} ({table.source})"


def _print(table: Tournament, as_json: bool) -> None:
    if as_json:
        for line in table.lines:
            print(json.dumps(_record(line, table.columns), ensure_ascii=False))
        return
    if not table.lines:
        print("no eval has finished")
        return
    _print_table(table)
    for number, origin in enumerate(table.origins, start=1):
        print(f"{number}: {origin}")
    for note in table.notes:
        print(note)


def _record(line: Line, columns: tuple[str, ...]) -> dict[str, object]:
    scores = {
        name: {"accuracy": cell.value, "lo": cell.lo, "hi": cell.hi, "response_tokens": cell.tokens}
        for name, cell in line.cells.items()
    }
    mean = line.mean(columns)
    return {
        "model": line.name,
        "kind": line.kind,
        "origin": line.origin,
        "mean": mean,
        "scores": scores,
    }


def _print_table(table: Tournament) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=200)
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False)
    grid.add_column("model", overflow="fold", min_width=12)
    grid.add_column("", no_wrap=True)
    for column in (*(["mean"] if table.has_mean else []), *table.columns):
        grid.add_column(column.replace("_", " "), justify="right")
    for line in table.lines:
        known = line.origin in table.origins
        kind = f"{line.kind} {table.origins.index(line.origin) + 1}" if known else line.kind
        mean = line.mean(table.columns)
        head = [] if not table.has_mean else ["-" if mean is None else f"{mean:.1f}"]
        grid.add_row(line.name, kind, *head, *(_cell(line.cells.get(c)) for c in table.columns))
    console.print(grid)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    span = f" ({cell.lo:.1f}–{cell.hi:.1f})" if cell.lo is not None and cell.hi is not None else ""
    return f"{cell.value:.1f}{span}"
