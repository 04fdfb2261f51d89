"""Row sets with amounts to one row set: picks, duplicates with their verdicts, the seed's order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from omr_runtime.identity import copy_id
from omr_runtime.near import FORMS, like, measures
from omr_runtime.relations import DUPLICATE, Relations, mixed, row_files
from omr_runtime.verify.tokens import TokenCounter
from omr_runtime.work import Progress, Shards, Work, check_rows, finish
from omrlang.schema import Mix
from omrlang.types import Near

SLICE = 5_000
"""Rows of one shard: fixed, so that a restarted worker makes the same shards."""

RULE = "unique = exact"


def run(work: Work) -> None:
    """Make the relations anew, write the slices that are not there yet."""
    spec = work.stage.spec
    assert isinstance(spec, Mix), "a mix stage carries a mix"
    shards, progress = Shards(work.out), Progress(work.progress)
    check_rows(work.inputs)
    repeats = near_repeats(spec.unique, work) if isinstance(spec.unique, Near) else None
    with mixed(spec, work.inputs, Path(work.out), repeats) as relations:
        num_kept, num_dropped = relations.num_rows()
        finished = shards.numbers()
        for number in range(max(1, -(-max(num_kept, num_dropped) // SLICE))):
            if number not in finished:
                shards.write(number, _slice(relations, spec, number * SLICE))
            progress.update(min((number + 1) * SLICE, num_kept), num_kept, "rows")
        by_part = relations.by_part(spec)
    finish(work, {"num_in": num_kept + num_dropped, "metrics": {"rows_by_part": by_part}})
    shutil.rmtree(Path(work.out) / FORMS, ignore_errors=True)


def near_repeats(near: Near, work: Work) -> pa.Table:
    """Which rows of all inputs repeat which: (file, spot, id, stays, via, alike), ``file`` as its path."""
    compared = measures(near, work)
    from omr_runtime.near.encoding import encode
    from omr_runtime.near.relations import repeats

    files, folder = row_files(work.inputs), Path(work.out) / FORMS
    seed, progress = work.stage.spec.seed, Progress(work.progress)
    forms = encode(near, compared, files, folder, seed, TokenCounter(work), progress)
    with repeats(near, compared, forms, folder) as found:
        table = found.table()
    paths = pa.array([str(files[number]) for number in table["file"].to_pylist()], pa.string())
    return table.set_column(0, "file", paths)


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
    rule = _rule(spec)
    if rule is not None:
        tables["verdict"] = [_verdict(rule, row, None) for row in rows["id"].to_pylist()]
        tables["verdict"] += [_verdict(rule, row["row"], row) for row in repeats]
    return tables


def _rule(spec: Mix) -> str | None:
    if isinstance(spec.unique, Near):
        return spec.unique.rule
    return None if spec.unique == "none" else RULE


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


def _verdict(rule: str, row: str, repeat: dict[str, Any] | None) -> dict[str, Any]:
    """Whether a row repeats none, or which: the one that stays, or by near duplicates the one that it is like."""
    said = {"row": row, "rule": rule, "ok": repeat is None, "reason": None, "score": None}
    if repeat is None:
        return said
    if repeat["via"] is None:
        return said | {"reason": f"repeats {repeat['first']}"}
    return said | {"reason": like(repeat["via"], repeat["first"]), "score": repeat["alike"]}
