"""A stage to what is committed of it, from the counts that each commit left."""

from __future__ import annotations

from dataclasses import dataclass, field

import duckdb


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


def counts_of(db: duckdb.DuckDBPyConnection, stage: str) -> Counts:
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
