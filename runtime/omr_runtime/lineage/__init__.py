"""Shards to lineage: which rows there are, where each came from, what was decided about it, what used it.

All SQL over ``lineage.duckdb`` is in this folder.
"""

from omr_runtime.lineage.counts import Counts
from omr_runtime.lineage.database import Busy
from omr_runtime.lineage.parquet import read_parquet, rows_with_image
from omr_runtime.lineage.reading import Reader, read
from omr_runtime.lineage.writing import COMMIT_PATIENCE_S, Writer, now, write

__all__ = [
    "COMMIT_PATIENCE_S",
    "Busy",
    "Counts",
    "Reader",
    "Writer",
    "now",
    "read",
    "read_parquet",
    "rows_with_image",
    "write",
]
