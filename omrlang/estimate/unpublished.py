"""A stage with settings that nobody published to costs that say so: what depends on them is unknown."""

from __future__ import annotations

from dataclasses import replace

from omrlang.estimate.ranges import unknown
from omrlang.estimate.rows import Flow
from omrlang.plan import Costs, Money
from omrlang.schema import Filter, Mix, Spec

COSTLESS = frozenset(
    {"temperature", "top_p", "top_k", "lr", "optimizer", "max_grad_norm", "algorithm"}
    | {"reward", "loss", "score", "shuffle", "label"}
)
"""Settings that change what comes out and not what it takes."""


def open_setting(spec: Spec) -> str | None:
    """The first unpublished setting that rows or costs depend on; None where all of those are known.

    What a filter keeps may be declared, and a mix counts its amounts before duplicates are dropped.
    """
    known = COSTLESS | ({"unique"} if isinstance(spec, Mix) else frozenset())
    if isinstance(spec, Filter) and spec.assume.keep is not None:
        known |= {"keep", "unique"}
    return next((path for path in spec.unpublished if path.partition(".")[0] not in known), None)


def without_numbers(costs: Costs, path: str) -> Costs:
    """The same costs where only what goes in is known."""
    why = f"`{path}` is unpublished"
    return costs.model_copy(
        update={
            "rows_out": unknown("rows", why),
            "tokens": unknown("tokens", why),
            "seconds": unknown("s", why),
            "gpu_hours": unknown("GPU-hours", why),
            "usd": Money(lo=None, mid=None, hi=None, origin="unknown", formula=why),
            "rows_by_source": {},
            "extra": {},
        }
    )


def without_rows(flow: Flow, path: str) -> Flow:
    """What stages after it know: the lengths stay, the number of rows does not."""
    return replace(flow, rows=unknown("rows", f"`{path}` is unpublished"), by_source={})
