"""A place to blocks of raw rows: read by column where all rows of a block are alike, or one by one.

Lines and Parquet come in blocks that Arrow can read at once, many times as fast as rows are looked at one by one.
Whatever is odd about a block (a type that changes, a key twice, a broken line) is not decided here: such a block has
no columns, and its rows are read one by one, as those of all other places are.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from omr_runtime.errors import RunError
from omr_runtime.places import (
    Bad,
    Good,
    Raw,
    batch_rows,
    find_files,
    numbered_lines,
    parse_line,
    read_place,
)
from omrlang.types import Jsonl, Parquet, Place

Item = TypeVar("Item")

NUM_LINES = 10_000
NUM_ROWS = 1_000
"""Rows of a block at most, of text and of anything else; a block ends at each multiple of it, and sooner where rows are big."""

BLOCK_BYTES = 32 << 20
"""A block ends once it has so many bytes."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that follow each other. ``columns(texts, others)`` gives those of the named columns that any row has, or None
    where rows differ in their types; ``may_have(start)`` tells whether a column's name may start so. ``file``,
    ``shown`` and ``positions`` (from 1) are set where there may be columns."""

    num_rows: int
    raw: Callable[[int], Raw]
    columns: Callable[[Sequence[str], Sequence[str]], pa.Table | None] = lambda texts, others: None
    may_have: Callable[[str], bool] = lambda start: True
    file: str = ""
    shown: str = ""
    positions: Sequence[int] = ()

    def raws(self) -> Iterator[Raw]:
        return (self.raw(at) for at in range(self.num_rows))


def read_blocks(
    place: Place, base: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[Block]:
    """All rows of the place in order. The same files give the same blocks. Columns of Parquet that are not ``wanted`` may be left
    unread, as if they were not there."""
    match place:
        case Jsonl(path=path):
            for file in find_files(path, base):
                yield from _lines(file)
        case Parquet(path=path):
            for file in find_files(path, base):
                yield from _batches(file, wanted)
        case _:
            for chunk in _cut(read_place(place, base), NUM_ROWS, _size_of_raw):
                yield Block(len(chunk), chunk.__getitem__)


def _cut(items: Iterable[Item], most: int, size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """All items in order, some at a time: cut at each multiple of ``most``, and sooner after ``BLOCK_BYTES``."""
    chunk: list[Item] = []
    num_bytes = 0
    for number, item in enumerate(items, start=1):
        chunk.append(item)
        num_bytes += size(item)
        if num_bytes >= BLOCK_BYTES or number % most == 0:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def _size_of_raw(raw: Raw) -> int:
    return _size(raw.row.values) if isinstance(raw.row, Good) else 0


def _size(value: Any) -> int:
    """Bytes or letters of all that a value holds."""
    match value:
        case str() | bytes():
            return len(value)
        case dict():
            return sum(map(_size, value.values()))
        case list() | tuple():
            return sum(map(_size, value))
        case _:
            return 0


def _size_of_line(line: tuple[int, bytes]) -> int:
    return len(line[1])


# ---- JSON lines ------------------------------------------------------------------------------------------------


def _lines(file: Path) -> Iterator[Block]:
    try:
        with open(file, "rb") as data:
            for chunk in _cut(numbered_lines(data), NUM_LINES, _size_of_line):
                yield _block_of_lines(file, chunk)
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror or error})") from error


def _block_of_lines(file: Path, chunk: list[tuple[int, bytes]]) -> Block:
    def raw(at: int) -> Raw:
        position, line = chunk[at]
        return Raw(file.name, position, "line", parse_line(line), str(file), file.parent)

    lines = [line for _, line in chunk]
    return Block(
        len(chunk),
        raw,
        lambda texts, others: _parsed(lines, texts, others),
        lambda start: any(start.encode() in line for line in lines),
        file.name,
        str(file),
        [position for position, _ in chunk],
    )


def _parsed(lines: Sequence[bytes], texts: Sequence[str], others: Sequence[str]) -> pa.Table | None:
    """The named columns, as text those that hold nothing else, else of the one type that a column has."""
    if not all(_is_one_object(line) for line in lines):
        return None
    data = b"\n".join(lines)
    for given in (texts, ()):
        try:
            table = _json(data, given, (*texts, *others))
            if dates := [field.name for field in table.schema if pa.types.is_temporal(field.type)]:
                table = _json(data, [*given, *dates], (*texts, *others))
        except pa.ArrowException:
            continue
        return table if table.num_rows == len(lines) else None
    return None


def _json(data: bytes, texts: Sequence[str], names: Sequence[str]) -> pa.Table:
    """The named columns: those of ``texts`` as text, others of the type that Arrow finds. Raises ArrowException."""
    given = pa.schema([(name, pa.string()) for name in texts])
    rest = "ignore" if {*names} <= {*texts} else "infer"
    whole = pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    options = pa.json.ParseOptions(explicit_schema=given, unexpected_field_behavior=rest)
    table = pa.json.read_json(io.BytesIO(data), whole, options)
    table.validate(full=True)
    return _named(table, names)


def _named(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return table.select([name for name in dict.fromkeys(names) if name in table.column_names])


def _is_one_object(line: bytes) -> bool:
    """Whether it can be: what begins and ends so goes over no line's end, and Arrow counts the objects."""
    text = line.strip()
    return text.startswith(b"{") and text.endswith(b"}")


# ---- Parquet ---------------------------------------------------------------------------------------------------


def _batches(file: Path, wanted: Callable[[str], bool]) -> Iterator[Block]:
    position = 0
    try:
        with pq.ParquetFile(file) as data:
            schema = data.schema_arrow
            # A batch of no columns has no rows.
            read = pa.schema(field for field in schema if wanted(field.name)) or schema
            names, num = [*dict.fromkeys(read.names)], batch_rows(read, NUM_ROWS)
            for batch in data.iter_batches(batch_size=num, columns=names):
                yield _block_of_batch(file, batch, position)
                position += batch.num_rows
    except pa.ArrowException as error:
        said = str(error).splitlines()[0]
        raise RunError(f"{file}: not readable as Parquet after row {position} ({said})") from error
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror or error})") from error


def _block_of_batch(file: Path, batch: pa.RecordBatch, before: int) -> Block:
    def raw(at: int) -> Raw:
        row: Good | Bad = Good(batch.slice(at, 1).to_pylist()[0])
        return Raw(file.name, before + at + 1, "row", row, str(file), file.parent)

    def columns(texts: Sequence[str], others: Sequence[str]) -> pa.Table | None:
        if len(set(batch.schema.names)) < len(batch.schema.names):
            return None
        table = _named(pa.Table.from_batches([batch]), (*texts, *others))
        try:
            table.validate(full=True)
        except pa.ArrowException:
            return None
        return table

    return Block(
        batch.num_rows,
        raw,
        columns,
        lambda start: any(name.startswith(start) for name in batch.schema.names),
        file.name,
        str(file),
        range(before + 1, before + batch.num_rows + 1),
    )
