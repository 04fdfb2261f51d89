"""Row sets with amounts to one row set: picks, exact duplicates with their verdicts, the seed's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from omr_runtime.identity import copy_id
from omr_runtime.relations import DUPLICATE, Relations, mixed
from omr_runtime.work import Progress, Shards, Work, check_rows, finish
from omrlang.schema import Mix

SLICE = 5_000
"""Rows of one shard: fixed, so that a restarted worker makes the same shards."""

RULE = "unique = exact"


def run(work: Work) -> None:
    """Make the relations anew, write the slices that are not there yet."""
    spec = work.stage.spec
    assert isinstance(spec, Mix), "a mix stage carries a mix"
    shards, progress = Shards(work.out), Progress(work.progress)
    check_rows(work.inputs)
    with mixed(spec, work.inputs, Path(work.out)) as relations:
        num_kept, num_dropped = relations.num_rows()
        finished = shards.numbers()
        for number in range(max(1, -(-max(num_kept, num_dropped) // SLICE))):
            if number not in finished:
                shards.write(number, _slice(relations, spec, number * SLICE))
            progress.update(min((number + 1) * SLICE, num_kept), num_kept, "rows")
        by_part = relations.by_part(spec)
    finish(work, {"num_in": num_kept + num_dropped, "metrics": {"rows_by_part": by_part}})


def _slice(relations: Relations, spec: Mix, start: int) -> dict[str, Any]:
    rows, again = relations.rows(start, start + SLICE)
    dropped = relations.dropped(start, start + SLICE)
    tables: dict[str, Any] = {
        "row": rows,
        "dropped": [{k: row[k] for k in ("row", "source", "reason")} for row in dropped],
    }
    rows, edges = _name_copies(rows, again)
    tables["row"] = rows
    repeats = [row for row in dropped if row["reason"] == DUPLICATE]
    edges += [
        {"child": row["row"], "parent": row["first"], "role": "duplicate_of"} for row in repeats
    ]
    tables["edge"] = edges
    if spec.unique == "exact":
        tables["verdict"] = [_verdict(row, True, None) for row in rows["id"].to_pylist()]
        tables["verdict"] += [
            _verdict(row["row"], False, f"repeats {row['first']}") for row in repeats
        ]
    return tables


def _name_copies(rows: pa.Table, again: list[int]) -> tuple[pa.Table, list[dict[str, str]]]:
    """The second and later occurrences of a row get ids of their own, with an edge to the first."""
    if not any(again):
        return rows, []
    ids = rows["id"].to_pylist()
    named = [
        copy_id(ident, number) if number else ident
        for ident, number in zip(ids, again, strict=True)
    ]
    pairs = [(new, old) for new, old in zip(named, ids, strict=True) if new != old]
    edges = [{"child": new, "parent": old, "role": "derived"} for new, old in pairs]
    return rows.set_column(rows.schema.get_field_index("id"), "id", pa.array(named)), edges


def _verdict(row: str, ok: bool, reason: str | None) -> dict[str, Any]:
    return {"row": row, "rule": RULE, "ok": ok, "reason": reason, "score": None}
