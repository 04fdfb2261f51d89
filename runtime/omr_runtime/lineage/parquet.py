"""Parquet files to their rows, read in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from omr_runtime.errors import RunError
from omr_runtime.lineage.database import first_line
from omr_runtime.work import for_duckdb


def rows_with_image(files: Sequence[Path], digest: str) -> list[str]:
    """The ids of the rows of Parquet files that show a picture."""
    if not files:
        return []
    with duckdb.connect(":memory:") as db:
        found = db.execute(
            "select id from read_parquet(?) where list_contains(images, ?) order by id",
            [for_duckdb(files), digest],
        )
        return [row[0] for row in found.fetchall()]


def read_parquet(
    files: Sequence[Path], limit: int | None = None, where_id: str | None = None
) -> list[dict[str, Any]]:
    """Rows of Parquet files in place, in order of files and rows."""
    if not files:
        return []
    sql = "select * from read_parquet(?)"
    params: list[Any] = [for_duckdb(files)]
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
            raise RunError(first_line(error)) from error
