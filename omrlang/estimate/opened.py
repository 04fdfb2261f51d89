"""A planned stage to all its numbers by name, each of which can be opened into what it was made of."""

from __future__ import annotations

from omrlang.plan import Estimate, Money, PlanStage


def metrics(stage: PlanStage) -> dict[str, Estimate | Money]:
    """``rows``, ``tokens``, ``seconds``, ``usd``, ``memory.logits``, ``steps``, …: what a plan says of the stage."""
    costs = stage.costs
    if costs is None:
        return {}
    found: dict[str, Estimate | Money] = {
        "rows_in": costs.rows_in,
        "rows": costs.rows_out,
        "tokens": costs.tokens,
        "seconds": costs.seconds,
        "gpu_hours": costs.gpu_hours,
        "usd": costs.usd,
        **costs.extra,
    }
    found |= {f"rows.{name}": item for name, item in costs.rows_by_source.items()}
    if costs.memory is not None:
        found["memory"] = costs.memory.total
        found |= {f"memory.{name}": item for name, item in costs.memory.parts.items()}
    return found
