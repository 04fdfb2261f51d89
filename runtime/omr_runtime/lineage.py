"""Shards to lineage: which rows there are, where each came from, what was decided about it, what used it.

All SQL over ``lineage.duckdb`` is here. One process writes and opens the database for each commit alone, because an
open writer keeps even readers out; readers try again for a few seconds. Responses and questions stay in Parquet.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from omr_runtime.errors import Resumable, RunError, is_disk_full
from omr_runtime.work import Shard

_MIGRATIONS: tuple[str, ...] = (
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
)

_COPIED: dict[str, str] = {
    "row": "id, parent, content, source, num_tokens",
    "edge": "child, parent, role",
    "verdict": '"row", rule, ok, reason, score',
    "dropped": '"row", source, reason',
    "use": '"row", step',
    "metric": "step, name, value",
    "rollout": """id, step, "row", sample_index, final_answer, finish, num_tokens, reward, parts, advantage,
                  mean_logprob, left_out""",
    "origin": '"row", file, position',
}
"""What is taken over from each table of a shard; the longer texts stay in the Parquet file."""

_DERIVED = ("funnel", "child")
"""``funnel`` has the counts of each shard's kept (``reason`` null) and dropped rows, so that nobody counts rows to tell
them; ``child`` the edges of finished stages a second time, by parent."""

SORTED_FROM = 100_000
"""Edges of a stage from which on they are worth sorting: fewer lie in one block of the database anyway."""

_SORT_MEMORY = "1GB"
"""What a sort may take before it goes on on disk."""

PUBLISHED = ("name", "like", "shape", "source", "tokens_per_s", "peak_bytes")
PROBE = ("name", "like", "shape", "units", "tokens", "seconds", "start_seconds", "peak_bytes")


@dataclass(frozen=True, slots=True)
class Counts:
    """What is committed of one stage."""

    num_rows: int = 0
    num_dropped: int = 0
    num_shards: int = 0
    rows_by_source: dict[str, int] = field(default_factory=dict)
    by_reason: dict[str, int] = field(default_factory=dict)
    mean_tokens: float | None = None
    num_tokens: int = 0
    steps_done: int | None = None


COMMIT_PATIENCE_S = 600.0
"""How long a commit that cannot wait for the next one waits for readers: a query of a person's own may take minutes."""


class Busy(RunError):
    """Somebody else has the lineage open, and kept it for too long."""


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _connect(path: Path, read_only: bool, patience_s: float) -> duckdb.DuckDBPyConnection:
    end = time.monotonic() + patience_s
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only)
        except duckdb.IOException as error:
            if is_disk_full(error):
                raise Resumable(f"{path}: the disk is full") from error
            is_locked = "lock" in str(error).lower()
            if not is_locked or time.monotonic() > end:
                kind = Busy if is_locked else RunError
                raise kind(
                    f"{path}: the lineage cannot be opened ({_first_line(error)})"
                ) from error
            time.sleep(0.05)
        except duckdb.Error as error:
            raise RunError(
                f"{path}: the lineage cannot be opened ({_first_line(error)})"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class Writer:
    """An open lineage in one transaction."""

    def __init__(self, db: duckdb.DuckDBPyConnection, run: str) -> None:
        self.db = db
        self.run = run

    def start_run(self, host: str, pid: int, recipe: str, version: str) -> None:
        self.db.execute(
            "insert into run values (?, ?, null, ?, ?, ?, ?, '[]', null)",
            [self.run, now(), host, pid, recipe, version],
        )

    def end_run(self, exit_code: int, stages: Sequence[str]) -> None:
        self.db.execute(
            "update run set ended = ?, exit_code = ?, stages = ? where id = ?",
            [now(), exit_code, json.dumps(list(stages)), self.run],
        )

    def start_stage(
        self,
        fingerprint: str,
        name: str,
        kind: str,
        spec: str,
        parents: Sequence[str],
        revision: str | None,
    ) -> None:
        """Say what the stage is; nothing when that was said before."""
        known = self.db.execute(
            "select status from stage where fingerprint = ?", [fingerprint]
        ).fetchone()
        if known:
            self.db.execute(
                "update stage set name = ?, run = ? where fingerprint = ?",
                [name, self.run, fingerprint],
            )
            return
        self.db.execute(
            "insert into stage values (?, ?, ?, ?, ?, ?, ?, 'partial', 0, '{}', null)",
            [fingerprint, name, kind, spec, json.dumps(list(parents)), revision, self.run],
        )

    def add_shard(self, stage: str, shard: Shard) -> None:
        """Take the shard over, once: nothing when it was before."""
        known = "select 1 from shard where stage = ? and number = ?"
        if self.db.execute(known, [stage, shard.number]).fetchone():
            return
        for table, columns in _COPIED.items():
            if table in shard.files:
                self.db.execute(
                    f'insert into "{table}" (stage, {columns}, shard) select ?, {columns}, ? from read_parquet(?)',
                    [stage, shard.number, str(shard.files[table])],
                )
        self._count(stage, shard)
        self.db.execute(
            "insert into shard values (?, ?, ?, ?)", [stage, shard.number, self.run, now()]
        )

    def _count(self, stage: str, shard: Shard) -> None:
        """What the shard adds to the stage's funnel."""
        counted = {
            "row": "null as reason, count(*), count(num_tokens), coalesce(sum(num_tokens), 0)",
            "dropped": "coalesce(reason, '') as reason, count(*), 0, 0",
        }
        for table, values in counted.items():
            if table in shard.files:
                self.db.execute(
                    f"insert into funnel select ?, ?, source, {values} from read_parquet(?) group by source, reason",
                    [stage, shard.number, str(shard.files[table])],
                )

    def sort_edges(self, stage: str) -> None:
        """Lay the edges of a finished stage by child, and once more by parent, so that a look-up reads one block of them.
        Doing it again changes nothing."""
        found = self.db.execute("select count(*) from edge where stage = ?", [stage]).fetchone()
        assert found is not None, "a count gives one row"
        if found[0] >= SORTED_FROM:
            self.db.execute(f"set memory_limit = '{_SORT_MEMORY}'")
            self.db.execute(
                "create temp table laid as select * from edge where stage = ? order by child",
                [stage],
            )
            self.db.execute("delete from edge where stage = ?", [stage])
            self.db.execute("insert into edge select * from laid")
            self.db.execute("drop table laid")
        self.db.execute("delete from child where stage = ?", [stage])
        self.db.execute(
            """insert into child select stage, parent, child, role from edge where stage = ?
               order by parent""",
            [stage],
        )

    def end_stage(self, stage: str, status: str, seconds: float, summary: dict[str, Any]) -> None:
        """The row that says finished: the last statement of a stage's last transaction."""
        self.db.execute(
            "update stage set status = ?, seconds = ?, summary = ?, finished = ?, run = ? where fingerprint = ?",
            [status, seconds, json.dumps(summary), now(), self.run, stage],
        )

    def forget_stage(self, stage: str) -> None:
        """Take back all that was committed of a stage, before its artifact is made again."""
        for table in (*_COPIED, *_DERIVED, "shard"):
            self.db.execute(f'delete from "{table}" where stage = ?', [stage])
        self.db.execute("delete from stage where fingerprint = ?", [stage])

    def add_estimate(self, stage: str, metric: str, values: Sequence[float | str | None]) -> None:
        """``values``: lo, mid, hi, unit, origin."""
        self.db.execute(
            "insert into estimate values (?, ?, ?, ?, ?, ?, ?, ?)",
            [self.run, stage, metric, *values],
        )

    def add_actual(self, stage: str, metric: str, value: float) -> None:
        self.db.execute("insert into actual values (?, ?, ?, ?)", [self.run, stage, metric, value])

    def add_probe(self, stage: str, row: Mapping[str, float | str]) -> None:
        """What a probe of a stage measured; every probe is kept, the index has the last."""
        values = [row[column] for column in PROBE]
        self.db.execute(
            "insert into probe values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [stage, *values, now()]
        )

    def add_published(self, stage: str, row: Mapping[str, float | str | None]) -> None:
        """What somebody published of a stage of this shape."""
        values = [row[column] for column in PUBLISHED]
        self.db.execute(
            "insert into published values (?, ?, ?, ?, ?, ?, ?, ?)", [stage, *values, now()]
        )

    def counts(self, stage: str) -> Counts:
        return _counts(self.db, stage)

    def trained_on(self, stage: str) -> tuple[int, int]:
        """Rows or rollouts that a training stage learned from, and the tokens that went through it."""
        found = self.db.execute(
            """select case when (select count(*) from rollout where stage = $1) > 0
                        then (select count(*) from rollout where stage = $1)
                        else (select count(distinct "row") from "use" where stage = $1) end,
                      (select coalesce(sum(value), 0) from metric where stage = $1 and name = 'tokens')""",
            [stage],
        ).fetchone()
        assert found is not None, "a select of scalars gives one row"
        return int(found[0]), int(found[1])


@contextlib.contextmanager
def write(path: Path, run: str, patience_s: float = COMMIT_PATIENCE_S) -> Iterator[Writer]:
    """One transaction: all of it or nothing. Resumable when the disk is full, Busy when readers keep it that long."""
    if not path.exists():
        _create(path)
    db = _connect(path, read_only=False, patience_s=patience_s)
    try:
        db.execute("begin")
        _migrate(db)
        yield Writer(db, run)
        db.execute("commit")
    except duckdb.Error as error:
        if is_disk_full(error):
            raise Resumable(
                f"{path}: the disk is full; free some space and run again to go on"
            ) from error
        raise RunError(f"{path}: the lineage cannot be written ({_first_line(error)})") from error
    finally:
        db.close()


def _create(path: Path) -> None:
    """Make an empty database beside and rename it: one that was cut short while it was made cannot be opened again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(beside)) as db:
            _migrate(db)
    except duckdb.Error as error:
        if is_disk_full(error):
            raise Resumable(
                f"{path}: the disk is full; free some space and run again to go on"
            ) from error
        raise RunError(f"{path}: the lineage cannot be made ({_first_line(error)})") from error
    os.replace(beside, path)


def _version(db: duckdb.DuckDBPyConnection) -> int:
    try:
        found = db.execute("select coalesce(max(number), 0) from schema_version").fetchone()
    except duckdb.CatalogException:
        return 0
    return int(found[0]) if found else 0


def _migrate(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("create table if not exists schema_version (number integer)")
    done = _version(db)
    if done > len(_MIGRATIONS):
        raise RunError(
            f"the lineage has version {done}, this version of omr knows {len(_MIGRATIONS)}"
        )
    for number, statement in enumerate(_MIGRATIONS[done:], start=done + 1):
        db.execute(statement)
        db.execute("insert into schema_version values (?)", [number])


def _counts(db: duckdb.DuckDBPyConnection, stage: str) -> Counts:
    """From the counts that each commit left: no row is read."""
    one = db.execute(
        """select coalesce(sum(num) filter (reason is null), 0), coalesce(sum(num) filter (reason is not null), 0),
                  (select count(*) from shard where stage = $stage), sum(num_counted), coalesce(sum(num_tokens), 0),
                  (select max(step) from metric where stage = $stage)
           from funnel where stage = $stage""",
        {"stage": stage},
    ).fetchone()
    assert one is not None, "a select of aggregates gives one row"
    by_source = db.execute(
        """select coalesce(source, ''), sum(num)::bigint from funnel where stage = ? and reason is null
           group by 1 order by 1""",
        [stage],
    ).fetchall()
    by_reason = db.execute(
        """select reason, sum(num)::bigint from funnel where stage = ? and reason is not null
           group by 1 order by 1""",
        [stage],
    ).fetchall()
    mean = int(one[4]) / int(one[3]) if one[3] else None
    return Counts(
        int(one[0]),
        int(one[1]),
        one[2],
        dict(by_source),
        dict(by_reason),
        mean,
        int(one[4]),
        one[5],
    )


# ---- reading ---------------------------------------------------------------------------------------------------


class Reader:
    """An open lineage, read-only. Every answer is a list of dicts."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self.db = db

    def ask(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        cursor = self.db.execute(sql, list(params))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def runs(self) -> list[dict[str, Any]]:
        return self.ask("select * from run order by started, id")

    def stages(self) -> list[dict[str, Any]]:
        return self.ask("select * from stage order by rowid")

    def counts(self, stage: str) -> Counts:
        return _counts(self.db, stage)

    def committed(self) -> dict[str, tuple[str, float, dict[str, Any]]]:
        """Status, seconds and summary of each stage."""
        found = self.ask("select fingerprint, status, seconds, summary from stage")
        return {
            row["fingerprint"]: (row["status"], row["seconds"], json.loads(row["summary"]))
            for row in found
        }

    def ids_with_prefix(self, prefix: str, limit: int = 20) -> list[str]:
        found = self.ask(
            """select distinct id from (select id from "row" union all select "row" from dropped
               union all select id from rollout) where starts_with(id, ?) order by id limit ?""",
            prefix,
            limit,
        )
        return [row["id"] for row in found]

    def places_of(self, row: str) -> list[dict[str, Any]]:
        """The stages that hold the row."""
        return self.ask(
            'select stage, parent, source, num_tokens, shard from "row" where id = ?', row
        )

    def drops_of(self, row: str) -> list[dict[str, Any]]:
        return self.ask('select stage, source, reason from dropped where "row" = ?', row)

    def verdicts_of(self, row: str) -> list[dict[str, Any]]:
        return self.ask('select stage, rule, ok, reason, score from verdict where "row" = ?', row)

    def origin_of(self, row: str) -> list[dict[str, Any]]:
        return self.ask('select stage, file, position from origin where "row" = ?', row)

    def edges_up(self, row: str) -> list[dict[str, Any]]:
        return self.ask(
            "select distinct stage, parent, role from edge where child = ? order by role, parent",
            row,
        )

    def edges_down(self, row: str) -> list[dict[str, Any]]:
        """From ``child``; of stages that are still at work from ``edge``, where nothing is laid by parent yet."""
        at_work = self.ask("select fingerprint from stage where status <> 'done'")
        found = self.ask("select distinct stage, child, role from child where parent = ?", row)
        for stage in at_work:
            found += self.ask(
                """select distinct stage, child, role from edge where stage = ? and parent = ?
                   except select stage, child, role from child where parent = ?""",
                stage["fingerprint"],
                row,
                row,
            )
        return sorted(found, key=lambda edge: (edge["role"], edge["child"]))

    def uses_of(self, row: str) -> list[dict[str, Any]]:
        return self.ask(
            'select stage, list(distinct step order by step) as steps from "use" where "row" = ? group by stage',
            row,
        )

    def rollouts_of(self, row: str) -> list[dict[str, Any]]:
        """The rollouts of a prompt row, counted by step."""
        return self.ask(
            """select stage, step, left_out, count(*) as num, avg(reward) as mean_reward from rollout where "row" = ?
               group by all order by stage, step, left_out nulls first""",
            row,
        )

    def rollout(self, ident: str) -> list[dict[str, Any]]:
        return self.ask("select * from rollout where id = ?", ident)

    def funnel(self, stage: str) -> list[dict[str, Any]]:
        """Kept and dropped rows of a stage by source and reason, from the counts that each commit left; a kept row has no
        reason."""
        return self.ask(
            """select source, reason, sum(num)::bigint as num from funnel where stage = $1
               group by all order by source nulls last, reason nulls first""",
            stage,
        )

    def sources_of(self, files: Sequence[str]) -> list[dict[str, Any]]:
        """The sources that read rows from a file of one of these names."""
        return self.ask(
            """select s.fingerprint, s.kind, s.name, count(*) as num from origin o
               join stage s on s.fingerprint = o.stage where list_contains($1, o.file) group by all order by s.name""",
            list(files),
        )

    def fates_of(self, source: str, files: Sequence[str]) -> list[dict[str, Any]]:
        """Where the rows of a file ended, and all that was made of them, by stage and reason; a kept row has no reason."""
        return self.ask(
            """with recursive made(id) as (
                 select "row" from origin where stage = $1 and list_contains($2, file)
                 union select e.child from edge e join made m on e.parent = m.id where e.role <> 'duplicate_of')
               select s.kind, s.name, f.reason, count(*) as num, min(s.rowid) as place from (
                 select stage, id, null as reason from "row" union all select stage, "row", reason from dropped) f
               join made m on m.id = f.id join stage s on s.fingerprint = f.stage
               group by s.kind, s.name, f.reason order by place, f.reason nulls first""",
            source,
            list(files),
        )

    def holders_of(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The stages that hold rows of these ids."""
        return self.ask(
            """select s.fingerprint, s.kind, s.name, count(*) as num, min(s.rowid) as place
               from (select distinct unnest($1::text[]) as id) wanted
               join "row" r on r.id = wanted.id join stage s on s.fingerprint = r.stage
               group by s.fingerprint, s.kind, s.name order by place""",
            list(ids),
        )

    def view(self, name: str, files: Sequence[Path]) -> None:
        """The rows of Parquet files under a name, for this connection alone; a table of the lineage keeps its name."""
        if name not in (
            *_COPIED,
            *_DERIVED,
            "run",
            "stage",
            "shard",
            "estimate",
            "actual",
            "probe",
        ):
            listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
            self.db.execute(f'create temp view "{name}" as select * from read_parquet([{listed}])')

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        return self.ask(
            "select step, name, value from metric where stage = ? order by name, step", stage
        )


@contextlib.contextmanager
def read(path: Path, patience_s: float = 5.0) -> Iterator[Reader]:
    """The lineage as of the last commit. RunError when there is none, or a writer keeps it for too long."""
    if not path.exists():
        raise RunError(f"{path}: no lineage here; nothing was run on this state folder")
    db = _connect(path, read_only=True, patience_s=patience_s)
    if _version(db) < len(_MIGRATIONS):
        db.close()
        with write(path, ""):
            """Left by an earlier version: opening it to write brings it up."""
        db = _connect(path, read_only=True, patience_s=patience_s)
    try:
        yield Reader(db)
    except duckdb.Error as error:
        raise RunError(f"{path}: {_first_line(error)}") from error
    finally:
        db.close()


def rows_with_image(files: Sequence[Path], digest: str) -> list[str]:
    """The ids of the rows of Parquet files that show a picture."""
    if not files:
        return []
    with duckdb.connect(":memory:") as db:
        found = db.execute(
            "select id from read_parquet(?) where list_contains(images, ?) order by id",
            [[str(file) for file in files], digest],
        )
        return [row[0] for row in found.fetchall()]


def read_parquet(
    files: Sequence[Path], limit: int | None = None, where_id: str | None = None
) -> list[dict[str, Any]]:
    """Rows of Parquet files in place, in order of files and rows."""
    if not files:
        return []
    sql = "select * from read_parquet(?)"
    params: list[Any] = [[str(file) for file in files]]
    if where_id is not None:
        sql, params = sql + " where id = ?", [*params, where_id]
    if limit is not None:
        sql, params = sql + " limit ?", [*params, limit]
    with duckdb.connect(":memory:") as db:
        try:
            cursor = db.execute(sql, params)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
        except duckdb.Error as error:
            raise RunError(_first_line(error)) from error
