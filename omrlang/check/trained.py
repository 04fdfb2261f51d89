"""``freeze`` and ``adapter`` of a finished stage against its model and each other: a part that is named exists, something is
left to train, nothing is said twice, and moments that are cut up are whole numbers of fp32.

Only what is certain is an error: whether a model from elsewhere has a vision tower is found out when it is loaded.
"""

from __future__ import annotations

from collections import Counter
from typing import get_args

from omrlang.check.context import Context
from omrlang.diagnostics import listed
from omrlang.hir import Stage
from omrlang.schema import Rl, Sft
from omrlang.source import Span
from omrlang.types import Fresh, Model, Part, Zero

OF_VISION = ("vision", "projector")
PARTS: tuple[str, ...] = get_args(Part)


def check_trained(ctx: Context, stage: Stage, text_only: str | None) -> None:
    """``text_only`` names the model that the stage starts from, where that sees no images for certain."""
    spec = stage.spec
    if not isinstance(spec, Sft | Rl):
        return
    if spec.adapter is not None:
        _check_targets(ctx, stage, spec.adapter.targets)
    if isinstance(spec.sharding, Zero) and spec.optimizer.moments != "fp32":
        message = f"{spec.kind} `{spec.name}` takes `sharding = zero(…)` or `moments = {spec.optimizer.moments}`, not both"
        hint = "ZeRO cuts up flat moments in fp32; `sharding = fsdp()` goes with both"
        ctx.error("E306", message, _span(stage, "optimizer.moments"), hint)
    if not spec.freeze:
        return
    at, kind = _span(stage, "freeze"), f"{spec.kind} `{spec.name}`"
    twice = _twice(spec.freeze)
    lacks = [part for part in spec.freeze if part in OF_VISION and text_only is not None]
    if spec.adapter is not None:
        message = (
            f"{kind}: `freeze` says nothing beside `adapter`, which leaves all weights as they are"
        )
        ctx.error("E316", message, at, "without `freeze`, or without `adapter`")
    elif twice is not None:
        ctx.error("E316", f"{kind}: `freeze` names `{twice}` twice", at)
    elif lacks:
        shown = listed([f"`{part}`" for part in lacks], "and")
        message = f"{kind}: `freeze` names {shown}, `{text_only}` is a model of text alone"
        own = listed([f"`{part}`" for part in PARTS if part not in OF_VISION], "and")
        ctx.error("E316", message, at, f"its parts are {own}")
    elif not _left(spec, text_only is not None):
        message = f"{kind}: `freeze` names every part, nothing is left to train"
        ctx.error("E316", message, at, _why_nothing(spec))


def _check_targets(ctx: Context, stage: Stage, targets: tuple[str, ...]) -> None:
    at = _span(stage, "adapter.targets")
    kind = f"{stage.spec.kind} `{stage.spec.name}`"
    twice = _twice(targets)
    if not targets:
        message = f"{kind}: `targets` names no matrix, nothing is left to train"
        ctx.error("E316", message, at, "without it all matrices of a layer have adapters")
    elif twice is not None:
        ctx.error("E316", f"{kind}: `targets` names `{twice}` twice", at)


def _left(spec: Sft | Rl, of_text: bool) -> set[str]:
    """The parts that are trained, as far as the model is known."""
    frozen = set(spec.freeze)
    if _is_tied(spec) and frozen & {"embeddings", "head"}:
        frozen |= {"embeddings", "head"}
    return {part for part in PARTS if not (of_text and part in OF_VISION)} - frozen


def _is_tied(spec: Sft | Rl) -> bool:
    """Whether embeddings and output layer are one matrix for certain."""
    return isinstance(spec.model, Model) and isinstance(spec.model.source, Fresh)


def _why_nothing(spec: Sft | Rl) -> str | None:
    if {"embeddings", "head"} <= set(spec.freeze):
        return None
    return "embeddings and output layer of this model are one matrix"


def _twice(names: tuple[str, ...]) -> str | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _span(stage: Stage, key: str) -> Span:
    """Where a setting, or else what holds it, was written."""
    for path in (key, key.partition(".")[0]):
        found = stage.settings.get(path)
        if found is not None and found.span is not None:
            return found.span
    return stage.span
