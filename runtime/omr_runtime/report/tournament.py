"""Finished evals, and what papers printed of the same benchmarks, to one table: models by benchmarks.

A line says whether it was measured by the run, scored by an official program, or published; the three are never mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from omr_runtime.report.ran import Ran
from omrlang import published
from omrlang.published import Table
from omrlang.schema import Eval
from omrlang.shown import shown_aggregate
from omrlang.types import Model

Kind = Literal["measured", "official", "published"]


@dataclass(frozen=True, slots=True)
class Cell:
    """An accuracy and the ends of its 95% interval, in percent; a published one has no interval and no tokens."""

    value: float
    lo: float | None = None
    hi: float | None = None
    tokens: float | None = None
    num_questions: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """``origin`` is the evals that measured it, an official program's result file, or where it was printed."""

    name: str
    kind: Kind
    origin: str
    cells: dict[str, Cell]

    def mean(self, columns: tuple[str, ...]) -> float | None:
        """Plain mean over the columns, in percent; None for a line with a gap, or one column alone."""
        if len(columns) < 2 or any(column not in self.cells for column in columns):
            return None
        return fmean(self.cells[column].value for column in columns)


@dataclass(frozen=True, slots=True)
class Tournament:
    """``notes`` say what a published number is where it is not the mean over the set's rows."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Those that the lines are of, each once."""
        return tuple(dict.fromkeys(line.kind for line in self.lines))

    @property
    def origins(self) -> tuple[str, ...]:
        """Where the lines come from that the run did not measure, each once: lines refer to them by number."""
        return tuple(dict.fromkeys(li.origin for li in self.lines if li.kind != "measured"))

    @property
    def has_mean(self) -> bool:
        return any(line.mean(self.columns) is not None for line in self.lines)


def tournament(ran: Ran, others: Sequence[Line] = ()) -> Tournament:
    """Every model that a finished eval judged, ``others``, then the published rows about the same benchmarks."""
    lines = (*measured(ran), *others)
    columns = tuple(dict.fromkeys(column for line in lines for column in line.cells))
    about = published.about(set(columns))
    printed = tuple(line for table in about for line in published_lines(table, columns))
    return Tournament(columns, (*lines, *printed), (*_own_notes(ran), *_notes(about, columns)))


def measured(ran: Ran) -> Iterator[Line]:
    """One line for each model; a second one where another eval asked it the same benchmark."""
    found: list[Line] = []
    for stage in ran.evals:
        assert isinstance(stage.spec, Eval), "only evals are asked for"
        model = stage.spec.model
        name = model.name if isinstance(model, Model) else model.stage
        cells = _cells(stage.name, ran.entries[stage.name].get("metrics", {}))
        same = [n for n, line in enumerate(found) if line.name == name]
        if same and not cells.keys() & found[same[0]].cells.keys():
            line = found[same[0]]
            merged = f"{line.origin}, eval {stage.name}"
            found[same[0]] = Line(name, "measured", merged, line.cells | cells)
        else:
            shown = f"{name} ({stage.name})" if same else name
            found.append(Line(shown, "measured", f"eval {stage.name}", cells))
    yield from found


def _cells(name: str, metrics: dict[str, Any]) -> dict[str, Cell]:
    """By benchmark, named as in its own file whatever module it stands in."""
    parts = metrics.get("by_source") or {name: metrics}
    return {
        source.rpartition(".")[2]: cell_of(values)
        for source, values in parts.items()
        if "accuracy" in values
    }


def cell_of(values: dict[str, Any]) -> Cell:
    """The metrics of an eval, or of one benchmark in it, in percent."""
    lo, hi = values.get("accuracy_lo"), values.get("accuracy_hi")
    return Cell(
        value=100 * values["accuracy"],
        lo=None if lo is None else 100 * lo,
        hi=None if hi is None else 100 * hi,
        tokens=values.get("mean_response_tokens"),
        num_questions=values.get("num_questions"),
    )


def published_lines(table: Table, columns: tuple[str, ...]) -> Iterator[Line]:
    """The rows of a published table, cut to the columns that are asked for."""
    for row in table.rows:
        values = dict(zip(table.columns, row.values, strict=True))
        cells = {column: Cell(values[column]) for column in columns if column in values}
        yield Line(row.name, "published", table.origin, cells)


def _own_notes(ran: Ran) -> Iterator[str]:
    for stage in ran.evals:
        assert isinstance(stage.spec, Eval), "only evals are asked for"
        ways = {name: stage.spec.aggregate_of(name) for name in stage.spec.rows}
        kinds = [
            f"{name.rpartition('.')[2]} is the {shown_aggregate(way)}"
            for name, way in ways.items()
            if way != "mean"
        ]
        if kinds:
            yield f"eval {stage.name}: {', '.join(kinds)}"


def _notes(tables: tuple[Table, ...], columns: tuple[str, ...]) -> Iterator[str]:
    for table in tables:
        kinds = [f"{name} is the {how}" for name, how in table.measure.items() if name in columns]
        if kinds:
            yield f"{table.origin}: {', '.join(kinds)}"
        if table.note:
            yield f"{table.origin}: {table.note}"
