"""Rows with ranks, in any order -> the same rows by rank, with no more of them in memory than one part.

Rows that belong together by rank share a part; a part is a file until it is read. Where one part holds all, there is
no file.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

RANK = "rank"
PART_BYTES = 32 << 20
MOST_PARTS = 200
"""Each part is a file that stays open while rows arrive."""

BATCH_ROWS = 512


def parts_of(sizes: pa.Array) -> pa.Array:
    """The part of each row, where ``sizes`` are the bytes of the rows in order of their ranks.

    >>> import pyarrow as pa
    >>> parts_of(pa.array([20 << 20, 20 << 20, 1])).to_pylist()
    [0, 1, 1]
    """
    ends = pc.cumulative_sum(sizes.cast(pa.int64()))
    total = ends[-1].as_py() if len(ends) else 0
    room = max(PART_BYTES, -(-total // MOST_PARTS))
    return pc.divide(pc.subtract(ends, 1), room).cast(pa.int32())


class Spool:
    """Use as a context manager: what is left of the folder goes when it ends."""

    def __init__(self, folder: Path, parts: pa.Array) -> None:
        self.folder = folder
        self.parts = parts
        self.num_parts = 1 + (pc.max(parts).as_py() or 0)
        self._held: list[pa.Table] = []
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def __enter__(self) -> Spool:
        shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was killed
        if self.num_parts > 1:
            self.folder.mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.clear()
        for writer in self._writers.values():
            writer.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, rows: pa.Table, ranks: Sequence[int] | pa.Array) -> None:
        """Rows, each with its rank."""
        column = ranks if isinstance(ranks, pa.Array) else pa.array(ranks, pa.int64())
        table = rows.append_column(RANK, column)
        if self.num_parts == 1:
            self._held.append(table)
            return
        parts = self.parts.take(column)
        for part in pc.unique(parts).to_pylist():
            self._writer(part, table.schema).write_table(table.filter(pc.equal(parts, part)))

    def _writer(self, part: int, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        if part not in self._writers:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writers[part] = pa.ipc.new_stream(str(self._path(part)), schema, options=options)
        return self._writers[part]

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:03d}.arrow"

    def read(self) -> Iterator[dict[str, Any]]:
        """All rows by rank, each with its rank under ``rank``. Ends the writing."""
        for part in range(self.num_parts):
            tables = self._held if self.num_parts == 1 else self._read_part(part)
            self._held = []
            if tables:
                yield from _by_rank(pa.concat_tables(tables))

    def _read_part(self, part: int) -> list[pa.Table]:
        if part not in self._writers:
            return []
        self._writers.pop(part).close()
        with pa.ipc.open_stream(str(self._path(part))) as stream:
            table = stream.read_all()
        self._path(part).unlink()
        return [table]


def _by_rank(table: pa.Table) -> Iterator[dict[str, Any]]:
    order = pc.sort_indices(table[RANK])
    for start in range(0, table.num_rows, BATCH_ROWS):
        yield from table.take(order.slice(start, BATCH_ROWS)).to_pylist()
