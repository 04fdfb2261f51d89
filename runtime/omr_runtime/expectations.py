"""What a stage must come out as, held against what it did: an error that stops the run where a limit does not hold."""

from __future__ import annotations

from typing import Any

from omr_runtime.errors import LimitBreached
from omrlang.plan import PlanStage
from omrlang.types import Limit


def check(stage: PlanStage, entry: dict[str, Any]) -> None:
    """Raises ``LimitBreached`` with every limit that does not hold. ``entry`` is the finished stage in the index."""
    expect = stage.spec.expect
    broken = []
    for limit in expect.limits if expect is not None else ():
        value = counted(limit, entry)
        if value is not None and not limit.holds(value):
            broken.append(f"`{limit.text}`, it is {value:,.6g}")
    if broken:
        raise LimitBreached(
            f"{stage.address} came out otherwise than expected: {'; '.join(broken)}"
        )


def counted(limit: Limit, entry: dict[str, Any]) -> float | None:
    """The number that a limit is about, as counted; None for what a run does not count (dollars)."""
    metrics = entry.get("metrics") or {}
    match limit.metric:
        case "rows":
            return float(entry["num_kept"])
        case "kept":
            return float(entry["num_kept"] / entry["num_in"]) if entry["num_in"] else None
        case "share":
            part = metrics.get("rows_by_part", {}).get(limit.of)
            return part / entry["num_kept"] if part is not None and entry["num_kept"] else None
        case "steps":
            return entry.get("steps_done")
        case "tokens" | "seconds":
            return entry.get(limit.metric)
        case "epochs" | "accuracy":
            return metrics.get(limit.metric)
        case "gpu_hours" | "usd":
            return None
