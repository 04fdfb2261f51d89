"""Files of rows to files of forms, one for one: what is compared of each row, and its place among all.

A file is written beside and renamed, so that a worker that was killed goes on with the next one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from omr_runtime.errors import RunError
from omr_runtime.identity import digest, order_key
from omr_runtime.near.measure import Measure
from omr_runtime.verify.interpret import Count, ExpressionError, Row, evaluate
from omr_runtime.work import Progress, read_table
from omrlang.types import Near, RowExpr


def encode(
    near: Near,
    measures: Sequence[Measure],
    files: Sequence[Path],
    folder: Path,
    seed: int,
    count: Count,
    progress: Progress,
) -> list[Path]:
    """The files of forms, in the order of the files of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"forms-{number:05d}.parquet" for number in range(len(files))]
    for number, (file, target) in enumerate(zip(files, made, strict=True)):
        if not target.exists():
            rows = list(read_table(file))
            beside = target.with_name(f".{target.name}.{os.getpid()}")
            pq.write_table(_forms(near, measures, rows, number, seed, count), beside)
            os.replace(beside, target)
        progress.update(number + 1, len(files), "files compared")
    return made


def _forms(
    near: Near,
    measures: Sequence[Measure],
    rows: Sequence[Row],
    file: int,
    seed: int,
    count: Count,
) -> pa.Table:
    """``rank`` orders rows: who is first among those that are alike stays."""
    columns = {
        "file": pa.array([file] * len(rows), pa.int64()),
        "spot": pa.array(range(len(rows)), pa.int64()),
        "id": pa.array([row["id"] for row in rows], pa.string()),
        "rank": pa.array([_rank(row, seed) for row in rows], pa.string()),
    }
    for number, (column, measure) in enumerate(zip(near.columns, measures, strict=True)):
        forms = measure.encode([_value(column, row, count) for row in rows])
        columns[f"form_{number}"] = pa.array(forms, pa.binary())
    return pa.table(columns)


def _rank(row: Row, seed: int) -> str:
    content = digest(row.get("content"), row.get("response"), row.get("thinking"))
    return order_key(seed, "near", content)


def _value(column: RowExpr, row: Row, count: Count) -> object:
    try:
        return evaluate(column.tree, row, count=count)
    except ExpressionError as error:
        raise RunError(f"row {row.get('id')}: `{column.text}`: {error}") from error
