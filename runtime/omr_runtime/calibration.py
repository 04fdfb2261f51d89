"""A measurement that somebody published becomes a calibration row: into the lineage, then into the index that plans read."""

from __future__ import annotations

from typing import Any

from omr_runtime import lineage
from omr_runtime.store import State, read_index, write_index
from omrlang.plan import PlanStage


def store(stage: PlanStage, row: dict[str, Any], state: State) -> None:
    """The last one of a stage counts; the lineage keeps all."""
    with lineage.write(state.lineage, "") as writer:
        writer.add_published(stage.fingerprint, row)
    index = read_index(state)
    index["published"][stage.fingerprint] = row
    write_index(state, index)
