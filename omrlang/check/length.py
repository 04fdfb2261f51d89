"""A training stage whose number of steps would hang on what the model answers: reported, because schedules count steps."""

from __future__ import annotations

from omrlang.check.context import Context
from omrlang.hir import Stage
from omrlang.schema import Rl
from omrlang.types import Dapo


def check_length(ctx: Context, stage: Stage) -> None:
    """``refill`` asks as many prompts as it takes, so that an epoch has no certain number of steps."""
    spec = stage.spec
    if not isinstance(spec, Rl) or spec.epochs is None:
        return
    if isinstance(spec.algorithm, Dapo) and spec.algorithm.refill is not None:
        given = stage.settings["epochs"].span or stage.span
        message = f"rl `{spec.name}` takes `steps` and not `epochs` with `refill`"
        hint = "how many prompts a step asks hangs on the rollouts, and the learning rate on the number of steps"
        ctx.error("E306", message, given, hint)
