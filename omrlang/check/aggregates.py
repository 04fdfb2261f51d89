"""An eval's row sets become how each is counted, where the eval leaves that to them; and what is counted is there."""

from __future__ import annotations

from typing import Any

from omrlang.check.context import Context, Traits
from omrlang.scope import Draft
from omrlang.types import Aggregate, Chains, Worst


def own_aggregates(ctx: Context, values: dict[str, Any]) -> dict[str, Aggregate]:
    """What benchmarks say of themselves, as far as it is not the mean and the eval does not say it for all."""
    if values.get("aggregate") is not None or not isinstance(values.get("rows"), tuple):
        return {}
    said = {name: ctx.traits.get(name, Traits()).aggregate for name in values["rows"]}
    return {name: found for name, found in said.items() if found not in (None, "mean")}


def check_aggregate(ctx: Context, aggregate: object, row_sets: list[Draft]) -> None:
    """Report row sets without the columns that say what is a variant of what, and which step of it."""
    if not isinstance(aggregate, Worst | Chains):
        return
    needed = (aggregate.by, *(["extra.step"] if isinstance(aggregate, Chains) else []))
    for draft in row_sets:
        names = ctx.rows[draft].names if draft in ctx.rows else None
        span = ctx.provenance["aggregate"].span
        for column in needed:
            if names is not None and column not in names and span is not None:
                message = (
                    f"`{aggregate.kind}` looks at `{column}`, which the rows of `{draft.name}` lack"
                )
                ctx.error("E209", message, span, f"its source maps no column `{column}`")
