"""Plans become what they cost together: each from scratch, what one takes over from others, the cheapest order of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omrlang.diff.report import Price
from omrlang.estimate.ranges import scaled, scaled_money
from omrlang.estimate.totals import totals
from omrlang.fingerprint import fingerprint
from omrlang.plan import Costs, Plan, PlanStage, Totals
from omrlang.schema import Sample
from omrlang.types import construct


def price(a: Plan, b: Plan) -> Price:
    """Costs as if nothing had been run before A."""
    return construct(
        Price,
        a=scratch(a),
        b=scratch(b),
        reused=_taken_over(b, a),
        after=marginal(b, [a]),
        untimed_a=untimed(a),
        untimed_b=untimed(b),
    )


def untimed(plan: Plan) -> tuple[str, ...]:
    """Stages that sums of time leave out, because nobody knows it."""
    return tuple(stage.name for stage in _once(plan) if _costs(stage).seconds.mid is None)


def _costs(stage: PlanStage) -> Costs:
    assert stage.costs is not None, "`_once` gives stages with costs"
    return stage.costs


def scratch(plan: Plan) -> Totals:
    """The whole recipe, nothing cached; equal stages once."""
    return marginal(plan, [])


def marginal(plan: Plan, before: Sequence[Plan]) -> Totals:
    """What a plan adds to those that were run before it."""
    there = _made(before)
    return _sum(plan, {stage.name: there.left(plan, stage) for stage in _once(plan)})


def _taken_over(plan: Plan, before: Plan) -> Totals:
    there = _made([before])
    return _sum(plan, {stage.name: 1 - there.left(plan, stage) for stage in _once(plan)})


def cheapest_order(plans: Sequence[Plan]) -> list[int]:
    """Positions in the order in which what is added stays smallest: the next is always the one that adds least.

    The sum is the same in any order, since every artifact and every sample is made once; this one has results early."""
    left = list(range(len(plans)))
    order: list[int] = []
    while left:
        done = [plans[position] for position in order]
        best = min(left, key=lambda position: _weight(marginal(plans[position], done)))
        left.remove(best)
        order.append(best)
    return order


def _weight(found: Totals) -> tuple[float, float]:
    return float(found.gpu_hours.mid or 0), float(found.seconds.mid or 0)


def together(plans: Sequence[Plan]) -> Totals:
    """A whole study: every artifact once, of stages that differ in ``n`` alone the samples of the largest."""
    costs: dict[str, Costs] = {}
    specs = {}
    for number, plan in enumerate(plans):
        there = _made(plans[:number])
        for stage in _once(plan):
            name, share = f"{number}.{stage.name}", there.left(plan, stage)
            if share and stage.costs is not None:
                costs[name], specs[name] = _part(stage.costs, share), stage.spec
    return totals(costs, dict.fromkeys(costs, "new"), specs)


# ---- what is there -----------------------------------------------------------------------------


class _Made(dict[str, int]):
    """Artifacts that exist (by fingerprint, 1), and how many samples of a question are drawn (by what was asked)."""

    def left(self, plan: Plan, stage: PlanStage) -> float:
        """The share of a stage's work that is still to be done: 4 -> 8 samples pay for four."""
        if stage.fingerprint in self:
            return 0.0
        if not isinstance(stage.spec, Sample):
            return 1.0
        return max(0.0, 1 - self.get(_asked(plan, stage), 0) / stage.spec.n)


def _made(plans: Sequence[Plan]) -> _Made:
    found = _Made()
    for plan in plans:
        for stage in plan.stages:
            found[stage.fingerprint] = 1
            if isinstance(stage.spec, Sample):
                asked = _asked(plan, stage)
                found[asked] = max(found.get(asked, 0), stage.spec.n)
    return found


def _asked(plan: Plan, stage: PlanStage) -> str:
    """What a ``sample`` stage asks of whom, apart from how often."""
    names = {other.name: other.fingerprint for other in plan.stages}
    once = stage.spec.model_copy(update={"n": 0})
    return "asked " + fingerprint(once, names, stage.revision)


def _once(plan: Plan) -> list[PlanStage]:
    """Stages with costs, each artifact once."""
    found = {stage.fingerprint: stage for stage in reversed(plan.stages) if stage.costs is not None}
    return list(reversed(found.values()))


def _sum(plan: Plan, shares: Mapping[str, float]) -> Totals:
    specs = {stage.name: stage.spec for stage in plan.stages}
    costs = {
        stage.name: _part(stage.costs, shares[stage.name])
        for stage in plan.stages
        if stage.costs is not None and shares.get(stage.name)
    }
    return totals(costs, dict.fromkeys(costs, "new"), specs)


def _part(cost: Costs, share: float) -> Costs:
    if share == 1:
        return cost
    update = {
        name: scaled(getattr(cost, name), share)
        for name in ("rows_out", "tokens", "seconds", "gpu_hours")
    }
    return cost.model_copy(update={**update, "usd": scaled_money(cost.usd, share)})
