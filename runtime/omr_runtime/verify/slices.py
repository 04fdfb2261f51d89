"""Input rows to fixed slices, each one shard: the same slices in every run, rows of one group in one slice.

What a shard holds is decided for good. Rows of a slice that are in no shard are still to be decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from omr_runtime.verify.interpret import Row
from omr_runtime.work import InputRows, Shards, read_rows, read_table

SLICE_ROWS = 1_000

GroupOf: TypeAlias = Callable[[Row], str]


@dataclass(slots=True)
class Slice:
    """``rows`` are those still to be decided; ``number`` is the shard that the slice's first decisions go to."""

    number: int
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slicing:
    """Which slice each group of rows is in, and how many rows each slice has."""

    slice_of: dict[str, int]
    num_rows: list[int]

    @property
    def total(self) -> int:
        return sum(self.num_rows)


def slicing(
    inputs: Iterable[InputRows], group_of: GroupOf, slice_rows: int = SLICE_ROWS
) -> Slicing:
    """Groups in order of their first row; a slice is full when it has ``slice_rows`` rows or more."""
    sizes: dict[str, int] = {}
    for row in read_rows(inputs, columns=["id", "parent"]):
        group = group_of(row)
        sizes[group] = sizes.get(group, 0) + 1
    slice_of: dict[str, int] = {}
    num_rows: list[int] = []
    for group, size in sizes.items():
        if not num_rows or num_rows[-1] >= slice_rows:
            num_rows.append(0)
        slice_of[group] = len(num_rows) - 1
        num_rows[-1] += size
    return Slicing(slice_of, num_rows)


@dataclass(frozen=True, slots=True)
class Decided:
    """What earlier runs left: ids of kept rows with their groups, and of dropped ones."""

    kept: dict[str, str]
    dropped: frozenset[str]

    @property
    def total(self) -> int:
        return len(self.kept) + len(self.dropped)

    def __contains__(self, row: object) -> bool:
        return row in self.kept or row in self.dropped


def decided(shards: Shards, group_of: GroupOf) -> Decided:
    """Read the ids that finished shards hold."""
    kept: dict[str, str] = {}
    dropped: set[str] = set()
    for shard in shards.read():
        for row in _column_rows(shard.files, "row", ["id", "parent"]):
            kept[row["id"]] = group_of(row)
        dropped.update(line["row"] for line in _column_rows(shard.files, "dropped", ["row"]))
    return Decided(kept, frozenset(dropped))


def _column_rows(files: dict[str, Any], table: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    return read_table(files[table], columns) if table in files else iter(())


def slices(
    inputs: Iterable[InputRows], cut: Slicing, known: Decided, group_of: GroupOf
) -> Iterator[Slice]:
    """Slices with rows still to be decided, each as soon as its last row was read.

    Rows of a group need not stand together; then the slices that wait for them are held in memory.
    """
    unread = list(cut.num_rows)
    open_slices: dict[int, Slice] = {}
    for row in read_rows(inputs):
        number = cut.slice_of[group_of(row)]
        unread[number] -= 1
        if row["id"] not in known:
            open_slices.setdefault(number, Slice(number)).rows.append(row)
        if unread[number] == 0 and number in open_slices:
            yield open_slices.pop(number)
