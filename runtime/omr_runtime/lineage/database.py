"""A path to a connection to its lineage, with the tables of this version.

One process writes and opens the database for each commit alone, because an open writer keeps even readers out; readers try
again for a few seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb

from omr_runtime.errors import Resumable, RunError, is_disk_full

MIGRATIONS: tuple[str, ...] = (
    """create table run (id text, started text, ended text, host text, pid bigint, recipe text, omr_version text,
       stages text, exit_code integer)""",
    """create table stage (fingerprint text, name text, kind text, spec text, parents text, revision text, run text,
       status text, seconds double, summary text, finished text)""",
    "create table shard (stage text, number integer, run text, committed text)",
    """create table "row" (stage text, id text, parent text, content text, source text, num_tokens bigint,
       shard integer)""",
    "create table edge (stage text, child text, parent text, role text, shard integer)",
    """create table verdict (stage text, "row" text, rule text, ok boolean, reason text, score double,
       shard integer)""",
    """create table dropped (stage text, "row" text, source text, reason text, shard integer)""",
    """create table "use" (stage text, "row" text, step bigint, shard integer)""",
    "create table metric (stage text, step bigint, name text, value double, shard integer)",
    """create table rollout (stage text, id text, step bigint, "row" text, sample_index bigint, final_answer text,
       finish text, num_tokens bigint, reward double, parts text, advantage double, mean_logprob double,
       shard integer)""",
    """create table origin (stage text, "row" text, file text, position bigint, shard integer)""",
    """create table estimate (run text, stage text, metric text, lo double, mid double, hi double, unit text,
       origin text)""",
    "create table actual (run text, stage text, metric text, value double)",
    "alter table rollout add column left_out text",
    """create table probe (stage text, name text, "like" text, shape text, units double, tokens double, seconds double,
       start_seconds double, peak_bytes double, measured text)""",
    """create table published (stage text, name text, "like" text, shape text, source text, tokens_per_s double,
       peak_bytes double, stored text)""",
    """create table funnel (stage text, shard integer, source text, reason text, num bigint, num_counted bigint,
       num_tokens bigint)""",
    """insert into funnel select stage, shard, source, null, count(*), count(num_tokens), coalesce(sum(num_tokens), 0)
       from "row" group by all""",
    """insert into funnel select stage, shard, source, coalesce(reason, ''), count(*), 0, 0 from dropped group by all""",
    "create table child (stage text, parent text, child text, role text)",
    "insert into child select stage, parent, child, role from edge order by parent",
    "alter table rollout add column first_step bigint",
    "alter table rollout add column carried_tokens bigint",
)


class Busy(RunError):
    """Somebody else has the lineage open, and kept it for too long."""


def connect(path: Path, read_only: bool, patience_s: float) -> duckdb.DuckDBPyConnection:
    end = time.monotonic() + patience_s
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only)
        except duckdb.IOException as error:
            if is_disk_full(error):
                raise Resumable(f"{path}: the disk is full") from error
            is_locked = "could not set lock" in str(error).lower()
            if not is_locked or time.monotonic() > end:
                kind = Busy if is_locked else RunError
                raise kind(f"{path}: the lineage cannot be opened ({first_line(error)})") from error
            time.sleep(0.05)
        except duckdb.Error as error:
            raise RunError(f"{path}: the lineage cannot be opened ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def not_written(path: Path, error: duckdb.Error, what: str) -> RunError:
    """Why a lineage could not be ``what``: with room on the disk the run goes on."""
    if is_disk_full(error):
        return Resumable(f"{path}: the disk is full; free some space and run again to go on")
    return RunError(f"{path}: the lineage cannot be {what} ({first_line(error)})")


def create(path: Path) -> None:
    """Make an empty database beside and rename it: one that was cut short while it was made cannot be opened again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(beside)) as db:
            migrate(db)
    except duckdb.Error as error:
        raise not_written(path, error, "made") from error
    os.replace(beside, path)


def is_old(db: duckdb.DuckDBPyConnection) -> bool:
    """Whether an earlier version of omr left it."""
    return _version(db) < len(MIGRATIONS)


def _version(db: duckdb.DuckDBPyConnection) -> int:
    try:
        found = db.execute("select coalesce(max(number), 0) from schema_version").fetchone()
    except duckdb.CatalogException:
        return 0
    return int(found[0]) if found else 0


def migrate(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("create table if not exists schema_version (number integer)")
    done = _version(db)
    if done > len(MIGRATIONS):
        raise RunError(
            f"the lineage has version {done}, this version of omr knows {len(MIGRATIONS)}"
        )
    for number, statement in enumerate(MIGRATIONS[done:], start=done + 1):
        db.execute(statement)
        db.execute("insert into schema_version values (?)", [number])
