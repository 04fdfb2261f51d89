"""Shards and what was measured to rows of the lineage, one transaction for each commit.

Responses and questions stay in Parquet.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from omr_runtime.lineage.counts import Counts, counts_of
from omr_runtime.lineage.database import connect, create, migrate, not_written
from omr_runtime.work import Shard, for_duckdb

COPIED: dict[str, str] = {
    "row": "id, parent, content, source, num_tokens",
    "edge": "child, parent, role",
    "verdict": '"row", rule, ok, reason, score',
    "dropped": '"row", source, reason',
    "use": '"row", step',
    "metric": "step, name, value",
    "rollout": """id, step, "row", sample_index, final_answer, finish, num_tokens, reward, parts, advantage,
                  mean_logprob, left_out, first_step, carried_tokens""",
    "origin": '"row", file, position',
}
"""What is taken over from each table of a shard; the longer texts stay in the Parquet file."""

DERIVED = ("funnel", "child")
"""``funnel`` has the counts of each shard's kept (``reason`` null) and dropped rows, so that nobody counts rows to tell
them; ``child`` the edges of finished stages a second time, by parent."""

SORTED_FROM = 100_000
"""Edges of a stage from which on they are worth sorting: fewer lie in one block of the database anyway."""

_SORT_MEMORY = "1GB"
"""What a sort may take before it goes on on disk."""

PUBLISHED = ("name", "like", "shape", "source", "tokens_per_s", "peak_bytes")
PROBE = ("name", "like", "shape", "units", "tokens", "seconds", "start_seconds", "peak_bytes")


COMMIT_PATIENCE_S = 600.0
"""How long a commit that cannot wait for the next one waits for readers: a query of a person's own may take minutes."""


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


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
        for table, columns in COPIED.items():
            if table in shard.files:
                self.db.execute(
                    f'insert into "{table}" (stage, {columns}, shard) select ?, {columns}, ? from read_parquet(?)',
                    [stage, shard.number, for_duckdb([shard.files[table]])],
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
                    [stage, shard.number, for_duckdb([shard.files[table]])],
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
        for table in (*COPIED, *DERIVED, "shard"):
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
        return counts_of(self.db, stage)

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
        create(path)
    db = connect(path, read_only=False, patience_s=patience_s)
    try:
        db.execute("begin")
        migrate(db)
        yield Writer(db, run)
        db.execute("commit")
    except duckdb.Error as error:
        raise not_written(path, error, "written") from error
    finally:
        db.close()
