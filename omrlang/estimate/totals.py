"""The costs of all stages become the totals of what will run."""

from __future__ import annotations

from collections.abc import Mapping

from omrlang.estimate.ranges import (
    as_estimate,
    between,
    derive,
    dollars,
    product,
    total,
    total_money,
)
from omrlang.plan import Action, Costs, Estimate, Money, Totals
from omrlang.schema import Spec


def totals(
    costs: Mapping[str, Costs], actions: Mapping[str, Action], specs: Mapping[str, Spec]
) -> Totals:
    """Sums over what will run; a partly done stage counts in full at the high end and not at the low end."""
    due = {
        name: _remaining(cost, actions[name])
        for name, cost in costs.items()
        if actions[name] != "cached"
    }
    rented = {name: cost for name, cost in due.items() if cost.gpu_hours.mid != 0}

    def summed(unit: str, metric: str, of: Mapping[str, Costs]) -> Estimate:
        return total(unit, "sum over stages", {name: getattr(of[name], metric) for name in of})

    sampled = {name: cost for name, cost in due.items() if specs[name].kind == "sample"}
    return Totals(
        rows_sampled=summed("rows", "rows_out", sampled),
        tokens=summed("tokens", "tokens", due),
        seconds=summed("s", "seconds", due),
        gpu_hours=summed("GPU-hours", "gpu_hours", rented),
        usd=total_money(_spent(due, rented)),
        not_estimated=sum(_is_open(cost) for cost in due.values()),
    )


def _spent(due: Mapping[str, Costs], rented: Mapping[str, Costs]) -> dict[str, Money]:
    """What each stage pays for its machines or its provider, and to its judges'."""
    stages = {name: cost.usd for name, cost in due.items() if name in rented or cost.usd.mid != 0}
    judges = {
        f"judges of {name}": dollars(cost.extra["judge_usd"])
        for name, cost in due.items()
        if "judge_usd" in cost.extra and cost.extra["judge_usd"].mid != 0
    }
    return stages | judges


def _is_open(cost: Costs) -> bool:
    """Whether any number of a stage is unknown."""
    numbers = (cost.rows_out, cost.tokens, cost.seconds, cost.gpu_hours, cost.usd)
    memory_open = cost.memory is not None and cost.memory.total.mid is None
    judge = cost.extra.get("judge_usd")
    judge_open = judge is not None and judge.mid is None
    return memory_open or judge_open or any(number.mid is None for number in numbers)


def _remaining(cost: Costs, action: Action) -> Costs:
    """Of a partly done stage anything from nothing to all of it."""
    if action != "partial":
        return cost
    share = between(0.0, 1.0, 1.0, "", "assumed", "how much of the stage is left")

    def left(number: Estimate) -> Estimate:
        formula = "what is left of a partly done stage"
        return derive(number.unit, formula, product, whole=number, share=share)

    parts = {name: left(getattr(cost, name)) for name in ("tokens", "seconds", "gpu_hours")}
    extra = {n: left(item) if n == "judge_usd" else item for n, item in cost.extra.items()}
    usd = dollars(left(as_estimate(cost.usd)))
    return cost.model_copy(update={**parts, "usd": usd, "extra": extra})
