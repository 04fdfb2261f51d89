"""A training stage whose steps would hang on what the model answers, where they must not: their number, because schedules count
steps, and which prompts the next one asks, where it begins before this one ends."""

from __future__ import annotations

from omrlang.check.context import Context
from omrlang.hir import Stage
from omrlang.schema import Rl
from omrlang.types import Dapo


def check_length(ctx: Context, stage: Stage) -> None:
    """``refill`` asks as many prompts as it takes, so that an epoch has no certain number of steps, and asks after their rewards
    on all processes are known."""
    spec = stage.spec
    if not isinstance(spec, Rl) or not isinstance(spec.algorithm, Dapo):
        return
    if spec.algorithm.refill is None:
        return
    if spec.behind:
        given = stage.settings["behind"].span or stage.span
        message = f"rl `{spec.name}` takes `behind` or `refill`, not both"
        hint = "which prompts a round asks hangs on the rewards of the one before, on all processes"
        ctx.error("E306", message, given, hint)
    if spec.epochs is not None:
        given = stage.settings["epochs"].span or stage.span
        message = f"rl `{spec.name}` takes `steps` and not `epochs` with `refill`"
        hint = "how many prompts a step asks hangs on the rollouts, and the learning rate on the number of steps"
        ctx.error("E306", message, given, hint)
