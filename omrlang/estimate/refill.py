"""DAPO's dynamic sampling becomes rounds and rollouts: how much is generated for groups that teach something, or that end first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omrlang.estimate import assumptions
from omrlang.estimate.ranges import between, derive, exact, product, setting
from omrlang.estimate.rows import Past, guess
from omrlang.plan import Estimate
from omrlang.schema import Rl
from omrlang.settle import beyond_batch, continues
from omrlang.types import Dapo


@dataclass(frozen=True, slots=True)
class Refilling:
    """``rounds`` of one step, ``rollouts`` of all steps; ``extra`` is what only a stage with ``refill`` has."""

    rounds: Estimate
    rollouts: Estimate
    extra: dict[str, Estimate]


def refilling(
    spec: Rl, batch: Estimate, group: Estimate, steps: Estimate, learned: Estimate, past: Past
) -> Refilling:
    """``batch`` in prompts, ``group`` in rollouts of one; ``learned`` rollouts are trained on."""
    refill = spec.algorithm.refill if isinstance(spec.algorithm, Dapo) else None
    if refill is None and spec.oversample is not None and not continues(spec):
        return _dropping(spec, batch, group, steps)
    if refill is None:
        return Refilling(exact(1, "rounds", "formula", "no `refill`"), learned, {})
    asked = refill.generate
    each = setting(asked.value, "prompts", "generate") if asked is not None else batch
    share = spread_share(spec, past)
    rounds = _rounds(setting(refill.rounds, "rounds", "rounds"), batch, each, share)
    rollouts = derive(
        "rollouts",
        "steps x rounds x prompts of a round x group",
        product,
        steps=steps,
        rounds=rounds,
        each=each,
        group=group,
    )
    left_out = derive(
        "rollouts",
        "steps x (rounds x prompts of a round - batch) x group",
        lambda steps, rounds, each, batch, group: steps * (rounds * each - batch) * group,
        falling=["batch"],
        steps=steps,
        rounds=rounds,
        each=each,
        batch=batch,
        group=group,
    )
    extra = {"rounds_per_step": rounds, "spread_share": share, "rollouts_left_out": left_out}
    return Refilling(rounds, rollouts, extra)


def _dropping(spec: Rl, batch: Estimate, group: Estimate, steps: Estimate) -> Refilling:
    """A group that is dropped has been drawn for as long as the last of the batch took: about as long as a whole one, since it is
    a long one."""
    more = setting(beyond_batch(spec), "prompts", "oversample")
    rollouts = derive(
        "rollouts",
        "steps x (batch + oversample) x group",
        lambda steps, batch, more, group: steps * (batch + more) * group,
        steps=steps,
        batch=batch,
        more=more,
        group=group,
    )
    left_out = derive(
        "rollouts", "steps x oversample x group", product, steps=steps, more=more, group=group
    )
    once = exact(1, "rounds", "formula", "what ends late is dropped")
    return Refilling(once, rollouts, {"rollouts_left_out": left_out})


def _rounds(most: Estimate, batch: Estimate, each: Estimate, share: Estimate) -> Estimate:
    """Whole rounds until the batch is full; the run stops where they are not enough."""

    def needed(most: float, batch: float, each: float, share: float) -> float:
        enough = math.ceil(batch / (each * share)) if share > 0 else most
        return max(math.ceil(batch / each), min(most, enough))

    return derive(
        "rounds",
        "batch / (prompts of a round x share with spread), rounded up, at most `rounds`",
        needed,
        falling=["each", "share"],
        most=most,
        batch=batch,
        each=each,
        share=share,
    )


def spread_share(spec: Rl, past: Past) -> Estimate:
    """Share of prompts whose rollouts differ in reward: measured, else declared, else assumed."""
    if past.same is not None and past.same.spread_share is not None:
        return exact(past.same.spread_share, "", "measured", "of the prompts that were asked")
    if past.earlier is not None and past.earlier.spread_share is not None:
        found = past.earlier.spread_share
        return exact(found, "", "calibrated", "of the last run under this name")
    said = spec.assume.spread
    if said is not None:
        return between(said.lo, said.middle, said.hi, "", "declared", "`assume { spread }`")
    return guess(assumptions.SPREAD_SHARE, "", "nothing is known about the task")
