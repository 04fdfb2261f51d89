"""What papers printed, as typed tables: numbers that nobody here measured, each table with its source.

A file ``PAPER.toml`` beside this module holds the tables of one paper.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, model_validator


class Row(BaseModel):
    """A model's line: ``values`` are accuracies in percent, one for each column; ``average`` is the paper's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: tuple[float, ...]
    average: float | None = None

    @property
    def mean(self) -> float:
        """Plain mean over the columns, in percent."""
        return fmean(self.values)


class Table(BaseModel):
    """``columns`` are names of benchmarks; ``measure`` says what a column's number is if it is not the mean over rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str
    source: str
    number: int
    title: str
    columns: tuple[str, ...]
    measure: dict[str, str] = {}
    note: str | None = None
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _is_full(self) -> Table:
        if any(len(row.values) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.number}: a row has not one value for each column")
        return self

    @property
    def name(self) -> str:
        """How a person asks for it: ``openmmreasoner.6``."""
        return f"{self.paper.lower()}.{self.number}"

    @property
    def origin(self) -> str:
        """Where it was printed."""
        return f"{self.paper}, table {self.number} ({self.source})"


@cache
def tables() -> tuple[Table, ...]:
    """All tables of all papers, in order of papers and numbers.

    >>> [table.name for table in tables()]
    ['openmmreasoner.6', 'openmmreasoner.7', 'openmmreasoner.8']
    """
    found: list[Table] = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        paper = tomllib.loads(path.read_text(encoding="utf-8"))
        head = {key: paper[key] for key in ("paper", "source")}
        found += [Table.model_validate(head | table) for table in paper["tables"]]
    return tuple(found)


def about(benchmarks: set[str]) -> tuple[Table, ...]:
    """The tables that have a column for one of the benchmarks."""
    return tuple(table for table in tables() if benchmarks & set(table.columns))
