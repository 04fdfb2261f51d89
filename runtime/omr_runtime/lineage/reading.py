"""Questions about rows, stages and runs to what the lineage knows of them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from omr_runtime.errors import RunError
from omr_runtime.lineage.counts import Counts, counts_of
from omr_runtime.lineage.database import connect, first_line, is_old
from omr_runtime.lineage.writing import COPIED, DERIVED, write
from omr_runtime.work import for_duckdb


class Reader:
    """An open lineage, read-only. Every answer is a list of dicts."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self.db = db

    def ask(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        self.db.execute(sql, list(params))  # what it returns is None where there is nothing to ask
        if self.db.description is None:
            raise RunError("the query is empty")
        names = _apart([column[0] for column in self.db.description])
        return [dict(zip(names, values, strict=True)) for values in self.db.fetchall()]

    def runs(self) -> list[dict[str, Any]]:
        return self.ask("select * from run order by started, id")

    def stages(self) -> list[dict[str, Any]]:
        return self.ask("select * from stage order by rowid")

    def counts(self, stage: str) -> Counts:
        return counts_of(self.db, stage)

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
            """select stage, step, left_out, count(*) as num, avg(reward) as mean_reward, min(first_step) as first_step
               from rollout where "row" = ?
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
            *COPIED,
            *DERIVED,
            "run",
            "stage",
            "shard",
            "estimate",
            "actual",
            "probe",
        ):
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in for_duckdb(files))
            self.db.execute(f'create temp view "{name}" as select * from read_parquet([{listed}])')

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        return self.ask(
            "select step, name, value from metric where stage = ? order by name, step", stage
        )


def _apart(names: Sequence[str]) -> list[str]:
    """The names of columns, one that stands again with a number, so that no column hides another.

    >>> _apart(["id", "id", "id_1"])
    ['id', 'id_2', 'id_1']
    """
    found: list[str] = []
    for name in names:
        others = (f"{name}_{number}" for number in itertools.count(1))
        free = (other for other in others if other not in names and other not in found)
        found.append(next(free) if name in found else name)
    return found


@contextlib.contextmanager
def read(path: Path, patience_s: float = 5.0) -> Iterator[Reader]:
    """The lineage as of the last commit. RunError when there is none, or a writer keeps it for too long."""
    if not path.exists():
        raise RunError(f"{path}: no lineage here; nothing was run on this state folder")
    db = connect(path, read_only=True, patience_s=patience_s)
    if is_old(db):
        db.close()
        with write(path, ""):
            """Opening it to write brings it up."""
        db = connect(path, read_only=True, patience_s=patience_s)
    try:
        yield Reader(db)
    except duckdb.Error as error:
        raise RunError(f"{path}: {first_line(error)}") from error
    finally:
        db.close()
