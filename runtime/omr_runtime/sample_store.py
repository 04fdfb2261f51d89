"""Completions -> shards on disk that are only ever added to, found again by question and index.

Alone knows how samples lie under ``STATE/store/samples/<group>``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from omr_runtime.engines.protocol import Completion

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

FLUSH_S = 3.0
FLUSH_SAMPLES = 4096

SampleKey: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies: a shard's number in the order of reading, and the line in it."""

    shard: int
    line: int


class SampleStore:
    """The samples of one group. One process writes at a time (the state's lock sees to that)."""

    def __init__(self, folder: Path, engine: str = "") -> None:
        self.folder, self.engine = folder, engine
        self.places: dict[SampleKey, Place] = {}
        self.errors: dict[SampleKey, str] = {}
        self._columns: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Any]] = []
        self._last_flush = time.monotonic()
        self._read()

    def __contains__(self, key: SampleKey) -> bool:
        return key in self.places

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
        self._take_in(table)

    def get(self, key: str, index: int) -> dict[str, Any]:
        """One sample. KeyError if it is not here."""
        place = self.places[key, index]
        return {
            name: column[place.line].as_py() for name, column in self._columns[place.shard].items()
        }

    def _read(self) -> None:
        """Take in all shards. One that is damaged is put aside, and its samples are asked again."""
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                table = pq.read_table(path, schema=SAMPLE, page_checksum_verification=True)
            except (OSError, pa.ArrowException):
                path.rename(path.with_suffix(".damaged"))
                continue
            self._take_in(table)
        self.errors.clear()

    def _take_in(self, table: pa.Table) -> None:
        shard = len(self._columns)
        whole = table.combine_chunks()
        self._columns.append({name: whole.column(name) for name in SAMPLE.names})
        columns = (whole.column(name).to_pylist() for name in ("key", "index", "finish", "error"))
        for line, (key, index, finish, error) in enumerate(zip(*columns, strict=True)):
            if finish == "error":
                self.errors[key, index] = error or "no reason given"
            else:
                self.places[key, index] = Place(shard, line)
                self.errors.pop((key, index), None)

    def _next_number(self) -> int:
        numbers = [int(path.stem.removeprefix("part-")) for path in self.folder.glob("part-*.*")]
        return max(numbers, default=-1) + 1
