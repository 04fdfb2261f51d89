"""A finished filter to the share of each question's samples that its ``keep`` let through."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from omr_runtime.errors import DamagedArtifact
from omr_runtime.work import Shards


def read_pass_rates(folder: str | Path) -> dict[str, float]:
    """By the question's ``content``. Samples over ``at_most`` count as kept: they passed."""
    kept: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    for shard in Shards(folder).read():
        if "tally" in shard.files:
            for content, num_kept, num_judged in _lines(shard.files["tally"]):
                kept[content] += num_kept
                judged[content] += num_judged
    return {content: kept[content] / number for content, number in judged.items() if number}


def _lines(path: Path) -> list[tuple[str, int, int]]:
    try:
        columns = pq.read_table(path).to_pydict()
        return list(
            zip(columns["content"], columns["num_kept"], columns["num_judged"], strict=True)
        )
    except (OSError, pa.ArrowException) as error:
        raise DamagedArtifact(path) from error
