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
    """``columns`` are names of benchmarks; ``measure`` says what a column's number is if it is not the mean over rows.
    A table that is not ``ranked`` has ablations of data alone and stands in no tournament."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str
    source: str
    number: int | str
    title: str
    columns: tuple[str, ...]
    measure: dict[str, str] = {}
    note: str | None = None
    ranked: bool = True
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

    >>> [table.name for table in tables()]  # doctest: +NORMALIZE_WHITESPACE
    ['openmmreasoner.2', 'openmmreasoner.3', 'openmmreasoner.4', 'openmmreasoner.5', 'openmmreasoner.6', 'openmmreasoner.7',
     'openmmreasoner.8', 'openmmreasoner.S2', 'openmmreasoner.S3']
    """
    found: list[Table] = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        paper = tomllib.loads(path.read_text(encoding="utf-8"))
        head = {key: paper[key] for key in ("paper", "source")}
        given = [Table.model_validate(head | table) for table in paper["tables"]]
        found += sorted(given, key=lambda table: str(table.number))
    return tuple(found)


def about(benchmarks: set[str]) -> tuple[Table, ...]:
    """The tables of models and algorithms that have a column for one of the benchmarks."""
    return tuple(it for it in tables() if it.ranked and benchmarks & set(it.columns))
