"""The contract between the driver and a stage worker: one work order in, shards and progress out.

A worker is a process that the driver starts with the path of a ``work.json``. It never opens the lineage database.
It leaves shards: numbered sets of Parquet files that become visible by one atomic rename of their manifest, which
the driver then commits to DuckDB. Whatever has no manifest does not exist and is overwritten by the next worker.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from omr_runtime.errors import DamagedArtifact
from omrlang.plan import PlanStage
from omrlang.types import Frozen, Prompt

ROW = pa.schema(
    [
        ("id", pa.string()),
        ("parent", pa.string()),
        ("content", pa.string()),
        ("source", pa.string()),
        ("question", pa.string()),
        ("images", pa.list_(pa.string())),
        ("videos", pa.list_(pa.string())),
        ("audios", pa.list_(pa.string())),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("variant", pa.string()),
        ("extra", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("thinking", pa.string()),
        ("final_answer", pa.string()),
        ("sample_index", pa.int64()),
        ("num_tokens", pa.int64()),
        ("finish", pa.string()),
        ("engine", pa.string()),
        ("pass_rate", pa.float64()),
    ]
)
"""The row schema. ``images`` holds sha256 digests of files under ``store/images``, ``videos`` and ``audios`` of
files under folders of their names; ``extra`` a JSON object;
``prompt`` the name and hash of the prompt that a response was sampled under; ``finish`` is stop, length or error."""

TABLES: dict[str, pa.Schema] = {
    "row": ROW,
    "edge": pa.schema([("child", pa.string()), ("parent", pa.string()), ("role", pa.string())]),
    "verdict": pa.schema(
        [
            ("row", pa.string()),
            ("rule", pa.string()),
            ("ok", pa.bool_()),
            ("reason", pa.string()),
            ("score", pa.float64()),
        ]
    ),
    "origin": pa.schema([("row", pa.string()), ("file", pa.string()), ("position", pa.int64())]),
    "dropped": pa.schema([("row", pa.string()), ("source", pa.string()), ("reason", pa.string())]),
    "tally": pa.schema(
        [("content", pa.string()), ("num_kept", pa.int64()), ("num_judged", pa.int64())]
    ),
    "use": pa.schema([("row", pa.string()), ("step", pa.int64())]),
    "metric": pa.schema([("step", pa.int64()), ("name", pa.string()), ("value", pa.float64())]),
    "rollout": pa.schema(
        [
            ("id", pa.string()),
            ("step", pa.int64()),
            ("row", pa.string()),
            ("sample_index", pa.int64()),
            ("response", pa.string()),
            ("final_answer", pa.string()),
            ("finish", pa.string()),
            ("num_tokens", pa.int64()),
            ("first_step", pa.int64()),
            ("carried_tokens", pa.int64()),
            ("reward", pa.float64()),
            ("parts", pa.string()),
            ("advantage", pa.float64()),
            ("mean_logprob", pa.float64()),
            ("left_out", pa.string()),
        ]
    ),
}
"""What a shard may hold. ``verdict.ok`` null is unknown. ``dropped`` has one line for each input row that a stage lets
go, so that in = kept + dropped. ``tally`` is written by filters, for ``pass_rate(STAGE)``: samples of a question that ``keep`` let through, and judged. ``rollout.left_out`` is why no update was made with a rollout: no_spread, reward_unknown, batch_full, unfinished; ``first_step`` is whose weights drew its first token, and ``carried_tokens`` how many of its tokens were drawn before ``step``. ``origin`` is written by sources: which line or row (from 1) of which file. Roles of an edge: derived, sampled_from, duplicate_of, merged."""


_PATTERN = re.compile(r"[*?\[]")

DICTS = 1_024
"""Rows of a batch that are made dicts at a time: sixty thousand as Parquet has them would be a hundred megabytes."""


def table_of(name: str, **columns: Any) -> pa.Table:
    """A table of a shard as long as its first column; a single value stands in each line, what is not given is null."""
    num_rows = len(next(iter(columns.values())))
    whole = {
        column: pa.repeat(value, num_rows) if isinstance(value, str | bool) else value
        for column, value in columns.items()
    }
    schema = TABLES[name]
    arrays = [whole.get(field.name, pa.nulls(num_rows, field.type)) for field in schema]
    return pa.table(arrays, names=schema.names).cast(schema)


class InputRows(Frozen):
    """The artifact of a stage that gives rows: its shards' ``row`` files, in order."""

    name: str
    fingerprint: str
    folder: str


class Work(Frozen):
    """Everything a stage worker is told. ``inputs`` are the row sets of the ``from`` clause in its order, ``others`` those
    that an expression names besides (``pass_rate(STAGE)``). ``out`` is ``store/<fingerprint>``; ``model_folders`` maps the name of a model
    or of a training stage to a Hugging Face folder that exists; ``base`` is what the recipe's paths are relative to;
    ``prompts`` are those of all sample stages of the plan, so
    that a filter finds the format of a row by its column ``prompt``."""

    stage: PlanStage
    seed: int
    base: str
    state: str
    out: str
    progress: str
    inputs: tuple[InputRows, ...] = ()
    others: tuple[InputRows, ...] = ()
    model_folders: dict[str, str] = Field(default_factory=dict)
    fingerprints: dict[str, str] = Field(default_factory=dict)
    prompts: tuple[Prompt, ...] = ()

    @staticmethod
    def read(path: str | Path) -> Work:
        return Work.model_validate_json(Path(path).read_text())

    @property
    def stop_file(self) -> Path:
        """There once the driver wishes that a training saves what is done and ends."""
        return Path(self.progress).with_suffix(".stop")

    def rows_of(self, name: str) -> InputRows:
        """The row set of the stage of that name. KeyError if the work order has none."""
        for entry in (*self.inputs, *self.others):
            if entry.name == name:
                return entry
        raise KeyError(name)


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside and rename, flushed to disk, so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@dataclass(frozen=True, slots=True)
class Shard:
    """One committed unit: ``files`` maps a table's name to its Parquet file."""

    number: int
    files: dict[str, Path]
    num_rows: dict[str, int]


class Shards:
    """The shards of one artifact folder, written in order and found again after a kill."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def read(self) -> list[Shard]:
        """All finished shards, by number. Raises DamagedArtifact for a manifest that cannot be read or is just gone."""
        found = []
        for manifest in sorted(self.folder.glob("shard-*.json")):
            try:
                data = json.loads(manifest.read_text())
            except (
                FileNotFoundError,
                ValueError,
            ) as error:  # the one where a run takes it away meanwhile
                raise DamagedArtifact(manifest) from error
            files = {table: self.folder / name for table, name in data["files"].items()}
            found.append(Shard(data["number"], files, data["num_rows"]))
        return found

    def numbers(self) -> set[int]:
        """The numbers of the finished shards, without opening any."""
        return {int(path.stem.removeprefix("shard-")) for path in self.folder.glob("shard-*.json")}

    def is_intact(self) -> bool:
        """Whether every file that a manifest names is there in the size it was written in. Reads no data."""
        try:
            manifests = [json.loads(path.read_text()) for path in self.folder.glob("shard-*.json")]
            sizes = [item for manifest in manifests for item in manifest["num_bytes"].items()]
            return all((self.folder / name).stat().st_size == size for name, size in sizes)
        except (OSError, ValueError, KeyError):
            return False

    def write(self, number: int, tables: Mapping[str, pa.Table | Sequence[dict[str, Any]]]) -> None:
        """Write the tables, then the manifest that makes them exist. ``tables`` maps names in ``TABLES`` to rows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files: dict[str, str] = {}
        num_rows: dict[str, int] = {}
        num_bytes: dict[str, int] = {}
        for table, rows in tables.items():
            data = (
                rows
                if isinstance(rows, pa.Table)
                else pa.Table.from_pylist(list(rows), TABLES[table])
            )
            name = f"{'part' if table == 'row' else table}-{number:05d}.parquet"
            beside = self.folder / f".{name}.{os.getpid()}"
            pq.write_table(data.cast(TABLES[table]), beside, write_page_checksum=True)
            with open(beside, "rb+") as file:
                os.fsync(file.fileno())
            num_bytes[name] = beside.stat().st_size
            os.replace(beside, self.folder / name)
            files[table], num_rows[table] = name, data.num_rows
        manifest = {"number": number, "files": files, "num_rows": num_rows, "num_bytes": num_bytes}
        write_atomic(self.folder / f"shard-{number:05d}.json", json.dumps(manifest).encode())


def read_rows(
    inputs: Iterable[InputRows], columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of the inputs as dicts over the row schema, input after input, shard after shard.

    Raises DamagedArtifact when a file is gone, cut or does not match its checksums.
    """
    for entry in inputs:
        for shard in Shards(entry.folder).read():
            if "row" in shard.files:
                yield from read_table(shard.files["row"], columns)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of the inputs, read from disk each time that they are gone through."""

    inputs: tuple[InputRows, ...]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return read_rows(self.inputs)


def check_rows(inputs: Iterable[InputRows]) -> None:
    """Read the row files against their checksums, for those who go on to read them with DuckDB, which does not
    look at checksums. Raises DamagedArtifact."""
    for entry in inputs:
        for shard in Shards(entry.folder).read():
            if "row" in shard.files:
                for _ in _batches(shard.files["row"], None):
                    pass


def for_duckdb(files: Iterable[Path | str]) -> list[str]:
    """Paths as DuckDB's ``read_parquet`` takes them, which would read the signs of a pattern in a folder's name as one, and
    rows of its neighbours with it.

    >>> for_duckdb(["study[1]/part.parquet"])
    ['study[[]1]/part.parquet']
    """
    return [_PATTERN.sub(r"[\g<0>]", str(file)) for file in files]


def read_table(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of one file of a shard. Raises DamagedArtifact."""
    for batch in _batches(path, columns):
        for start in range(0, batch.num_rows, DICTS):
            yield from batch.slice(start, DICTS).to_pylist()


def _batches(path: Path, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DamagedArtifact(path) from error


class Progress:
    """Progress lines that the driver reads and shows: appended JSON, at most ten a second."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.last = 0.0

    def update(self, done: int, total: int | None, unit: str, **live: float) -> None:
        """``live`` are the figures of the live line, such as ``loss`` or ``tokens_per_s``."""
        now = time.monotonic()
        if now - self.last < 0.1 and done != total:
            return
        self.last = now
        line = json.dumps(
            {"done": done, "total": total, "unit": unit, "live": live, "at": time.time()}
        )
        with open(self.path, "a") as file:
            file.write(line + "\n")


def finish(work: Work, summary: dict[str, Any]) -> None:
    """Say that the stage is done: the last thing a worker writes. ``summary`` becomes the stage's record in the index.

    Known keys, all optional: ``metrics`` (numbers for the result table: ``accuracy``, ``accuracy_lo``, ``accuracy_hi``,
    ``mean_response_tokens``, ``format_rate``, ``num_questions``, ``by_source``, ``by_category``), ``rates`` (tokens a second by
    "KIND/MODEL/ENGINE"), ``tokens``, ``mean_prompt_tokens``, ``mean_response_tokens``, ``num_in`` where it is not the
    number of input rows (times ``n``), ``spread_share`` of the prompts that were asked in ``rl``. ``peak_bytes`` is added here. Rows, drops and reasons are counted from the shards.
    """
    summary = {"peak_bytes": peak_bytes(), **summary}
    write_atomic(Path(work.out) / "done.json", json.dumps(summary).encode())


def peak_bytes() -> int:
    """This process's memory at its peak: of its GPU where it computed on one, else what it had resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fail(work: Work, message: str, exit_code: int, damaged: str | None = None) -> None:
    """Leave the reason for the driver: the message that a person reads, and the file that was found damaged."""
    left = {"message": message, "exit_code": exit_code, "damaged": damaged}
    write_atomic(Path(work.out) / "error.json", json.dumps(left).encode())
