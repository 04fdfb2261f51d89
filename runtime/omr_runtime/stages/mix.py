"""Row sets with amounts to one row set: picks, duplicates with their verdicts, the seed's order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from omr_runtime.identity import copy_id
from omr_runtime.near import FORMS, like, measures
from omr_runtime.relations import Relations, mixed, row_files
from omr_runtime.verify.tokens import TokenCounter
from omr_runtime.work import TABLES, Progress, Shards, Work, check_rows, finish, table_of
from omrlang.schema import Mix
from omrlang.types import Near

SLICE = 10_000
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


def _slice(relations: Relations, spec: Mix, start: int) -> dict[str, pa.Table]:
    rows, again = relations.rows(start, start + SLICE)
    dropped = relations.dropped(start, start + SLICE)
    repeats = dropped.filter(pc.is_valid(dropped["first"]))
    rows, copies = _name_copies(rows, again)
    tables = {"row": rows, "dropped": dropped.select(["row", "source", "reason"])}
    pairs = table_of("edge", child=repeats["row"], parent=repeats["first"], role="duplicate_of")
    tables["edge"] = pa.concat_tables([copies, pairs])
    if (rule := _rule(spec)) is not None:
        why = [
            _said(*row)
            for row in zip(*(repeats[c].to_pylist() for c in ("first", "via")), strict=True)
        ]
        gone = {"ok": False, "reason": pa.array(why, pa.string()), "score": repeats["alike"]}
        kept = table_of("verdict", row=rows["id"], rule=rule, ok=True)
        repeated = table_of("verdict", row=repeats["row"], rule=rule, **gone)
        tables["verdict"] = pa.concat_tables([kept, repeated])
    return tables


def _rule(spec: Mix) -> str | None:
    if isinstance(spec.unique, Near):
        return spec.unique.rule
    return None if spec.unique == "none" else RULE


def _said(first: str, via: str | None) -> str:
    """Which row another repeats: the one that stays, or by near duplicates the one that it is like."""
    return f"repeats {first}" if via is None else like(via, first)


def _name_copies(rows: pa.Table, again: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
    """The second and later occurrences of a row get ids of their own, with an edge to the first."""
    if not pc.any(pc.greater(again, 0)).as_py():
        return rows, TABLES["edge"].empty_table()
    ids = rows["id"].to_pylist()
    named = [
        copy_id(ident, number) if number else ident
        for ident, number in zip(ids, again.to_pylist(), strict=True)
    ]
    pairs = [(new, old) for new, old in zip(named, ids, strict=True) if new != old]
    children, parents = ([pair[side] for pair in pairs] for side in (0, 1))
    edges = table_of("edge", child=pa.array(children), parent=pa.array(parents), role="derived")
    return rows.set_column(rows.schema.get_field_index("id"), "id", pa.array(named)), edges
