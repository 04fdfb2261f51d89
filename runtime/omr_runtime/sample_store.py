"""Completions -> shards on disk that are only ever added to, found again by question and index.

Alone knows how samples lie under ``STATE/store/samples/<group>``. Texts stay on disk: in memory is where each sample
lies, in some forty bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omr_runtime.engines.protocol import Completion
from omr_runtime.errors import DamagedArtifact
from omr_runtime.spool import RANK, Spool, parts_of

SAMPLE = pa.schema(
    [
        ("key", pa.string()),
        ("index", pa.int32()),
        ("text", pa.string()),
        ("num_tokens", pa.int32()),
        ("num_prompt_tokens", pa.int32()),
        ("finish", pa.string()),
        ("error", pa.string()),
        ("mean_logprob", pa.float64()),
        ("engine", pa.string()),
    ]
)

TAG_BYTES = 20
TAG = pa.binary(TAG_BYTES)
"""What names a sample in memory: its key's 16 bytes and its index."""

_PLACE = pa.schema(
    [("tag", TAG), ("shard", pa.int32()), ("line", pa.int32()), ("size", pa.int32())]
)
_BESIDE_TEXT = 200
"""Bytes that a sample has in memory besides its text, roughly."""

FLUSH_S = 3.0
FLUSH_SAMPLES = 4096


def tag_of(key: bytes, index: int) -> bytes:
    return key + index.to_bytes(4, "big")


def tags(named: Iterable[bytes]) -> pa.Array:
    """Names of samples as one column."""
    data = b"".join(named)
    return pa.Array.from_buffers(TAG, len(data) // TAG_BYTES, [None, pa.py_buffer(data)])


class SampleStore:
    """The samples of one group. One process writes at a time (the state's lock sees to that)."""

    def __init__(self, folder: Path, engine: str = "") -> None:
        self.folder, self.engine = folder, engine
        self.errors: dict[bytes, str] = {}
        self._shards: list[Path] = []
        self._places: pa.Table = _PLACE.empty_table()
        self._new_places: list[pa.Table] = []
        self._waiting: list[dict[str, Any]] = []
        self._last_flush = time.monotonic()
        self._read()

    def add(self, completion: Completion) -> None:
        """Keep a sample; it is on disk after at most a few seconds. A failed one is kept for the record, and is asked
        again by the next run that wants it."""
        self._waiting.append(
            {
                "key": completion.key,
                "index": completion.index,
                "text": completion.text,
                "num_tokens": completion.num_tokens,
                "num_prompt_tokens": completion.num_prompt_tokens,
                "finish": completion.finish,
                "error": completion.error,
                "mean_logprob": completion.mean_logprob,
                "engine": self.engine,
            }
        )
        late = time.monotonic() - self._last_flush > FLUSH_S
        if late or len(self._waiting) >= FLUSH_SAMPLES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as one shard, visible by its rename."""
        self._last_flush = time.monotonic()
        if not self._waiting:
            return
        table = pa.Table.from_pylist(self._waiting, SAMPLE)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"part-{self._next_number():06d}.parquet"
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, beside, write_page_checksum=True)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        self._waiting = []
        self._take_in(path, table)

    # ---- what is here

    def has(self, wanted: pa.Array) -> pa.Array:
        """For each name of a sample whether it is here."""
        return pc.is_in(wanted, value_set=self._all_places()["tag"].combine_chunks())

    def error(self, name: bytes) -> str | None:
        """Why a sample that was asked in this process could not be had."""
        return self.errors.get(name)

    def read(self, wanted: pa.Array, folder: Path) -> Iterator[dict[str, Any] | None]:
        """The samples of these names in their order, None for one that is not here.

        Shards are read once each, and what is wanted of them goes through ``folder`` where it is much.
        Raises DamagedArtifact.
        """
        found = self._found(wanted)
        sizes = pc.add(pc.fill_null(found["size"], 0), _BESIDE_TEXT)
        at = 0
        with Spool(folder, parts_of(sizes)) as spool:
            self._fill(spool, found)
            for sample in spool.read():
                for _ in range(at, sample[RANK]):
                    yield None
                at = sample.pop(RANK) + 1
                yield sample
        for _ in range(at, len(wanted)):
            yield None

    def _found(self, wanted: pa.Array) -> pa.Table:
        """Where the wanted samples lie, nulls for those that are not here."""
        places = self._all_places()
        at = pc.index_in(wanted, value_set=places["tag"].combine_chunks())
        table: pa.Table = places.select(["shard", "line", "size"]).take(at).combine_chunks()
        return pa.table({name: _flat(table[name]) for name in table.column_names})

    def _fill(self, spool: Spool, found: pa.Table) -> None:
        ranks = pa.array(range(found.num_rows), pa.int64())
        here = found.append_column(RANK, ranks).filter(pc.is_valid(found["line"]))
        here = here.sort_by([("shard", "ascending"), ("line", "ascending")])
        start = 0
        for count in pc.value_counts(here["shard"]).to_pylist():
            part = here.slice(start, count["counts"])
            start += count["counts"]
            whole = self._shard(self._shards[count["values"]])
            spool.add(whole.take(part["line"]), _flat(part[RANK]))

    def _shard(self, path: Path) -> pa.Table:
        try:
            return pq.read_table(path, schema=SAMPLE, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise DamagedArtifact(path) from error

    def _all_places(self) -> pa.Table:
        if self._new_places:
            self._places = pa.concat_tables([self._places, *self._new_places]).combine_chunks()
            self._new_places = []
        return self._places

    # ---- reading all

    def _read(self) -> None:
        """Take in all shards. One that is damaged is put aside, and its samples are asked again."""
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                table = pq.read_table(path, schema=SAMPLE, page_checksum_verification=True)
            except (OSError, pa.ArrowException):
                path.rename(path.with_suffix(".damaged"))
                continue
            self._take_in(path, table)
        self.errors.clear()

    def _take_in(self, path: Path, table: pa.Table) -> None:
        shard = len(self._shards)
        self._shards.append(path)
        names = ("key", "index", "finish", "error")
        columns = [table[name].to_pylist() for name in names]
        named, lines = [], []
        for line, (key, index, finish, error) in enumerate(zip(*columns, strict=True)):
            name = tag_of(bytes.fromhex(key), index)
            if finish == "error":
                self.errors[name] = error or "no reason given"
            else:
                named.append(name)
                lines.append(line)
                self.errors.pop(name, None)
        at = pa.array(lines, pa.int32())
        sizes = _flat(pc.binary_length(table["text"]).take(at))
        where = [tags(named), pa.repeat(pa.scalar(shard, pa.int32()), len(at)), at, sizes]
        self._new_places.append(pa.table(where, schema=_PLACE))

    def _next_number(self) -> int:
        numbers = [int(path.stem.removeprefix("part-")) for path in self.folder.glob("part-*.*")]
        return max(numbers, default=-1) + 1


def _flat(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
