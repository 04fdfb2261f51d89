"""A training stage whose steps would hang on what the model answers, where they must not: their number, because schedules count
steps, and which prompts the next one asks, where it begins before this one ends."""

from __future__ import annotations

from omrlang.check.context import Context
from omrlang.hir import Stage
from omrlang.schema import Rl
from omrlang.settle import engine_apart
from omrlang.types import Dapo


def check_length(ctx: Context, stage: Stage) -> None:
    """``refill`` asks as many prompts as it takes, so that an epoch has no certain number of steps, and asks after their rewards
    on all processes are known. ``oversample`` leaves prompts under way where a step ends: who begins another batch beside it
    would have to know which."""
    spec = stage.spec
    if not isinstance(spec, Rl):
        return
    refills = isinstance(spec.algorithm, Dapo) and spec.algorithm.refill is not None
    if refills:
        _check_refill(ctx, stage, spec)
    if spec.oversample is not None:
        _check_oversample(ctx, stage, spec, refills)
    elif spec.unfinished is not None:
        message = f"rl `{spec.name}` takes `unfinished` with `oversample` alone"
        hint = "without it a step waits for all that it asked: nothing is left unfinished"
        _report(ctx, stage, "unfinished", message, hint)


def _check_refill(ctx: Context, stage: Stage, spec: Rl) -> None:
    if spec.behind:
        message = f"rl `{spec.name}` takes `behind` or `refill`, not both"
        hint = "which prompts a round asks hangs on the rewards of the one before, on all processes"
        _report(ctx, stage, "behind", message, hint)
    if spec.epochs is not None:
        message = f"rl `{spec.name}` takes `steps` and not `epochs` with `refill`"
        hint = "how many prompts a step asks hangs on the rollouts, and the learning rate on the number of steps"
        _report(ctx, stage, "epochs", message, hint)


def _check_oversample(ctx: Context, stage: Stage, spec: Rl, refills: bool) -> None:
    if refills:
        message = f"rl `{spec.name}` takes `oversample` or `refill`, not both"
        hint = "the one fills a batch with what ends first, the other with what has spread"
        _report(ctx, stage, "oversample", message, hint)
    if engine_apart(spec) is not None:
        message = f"rl `{spec.name}` takes `oversample` only with an engine in the training process"
        hint = "an engine apart does not tell what it has not finished: `engine = vllm()`"
        _report(ctx, stage, "engine", message, hint)
    if spec.behind:
        message = f"rl `{spec.name}` takes `behind` or `oversample`, not both"
        hint = "either saves the wait for the longest rollouts"
        _report(ctx, stage, "behind", message, hint)


def _report(ctx: Context, stage: Stage, key: str, message: str, hint: str) -> None:
    ctx.error("E306", message, stage.settings[key].span or stage.span, hint)
