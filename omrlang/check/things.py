"""Drafts of models, devices, machines and prompts to their values."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from omrlang import syntax as s
from omrlang.check.conform import conform
from omrlang.check.context import FAILED, Columns, Context, Place
from omrlang.check.fill import fill
from omrlang.check.values import Choice, an, describe, evaluate
from omrlang.parse import MAX_DEPTH
from omrlang.resolve import Draft, layered, look_up
from omrlang.types import Fresh, Gpu, Hardware, Model, ModelSource, Prompt

_MODELS: dict[str, type[BaseModel]] = {
    "model": Model,
    "gpu": Gpu,
    "hardware": Hardware,
    "prompt": Prompt,
}


def build(ctx: Context, draft: Draft) -> Any:
    """The value of a draft that is no stage, or FAILED after a report."""
    model = _MODELS[draft.kind]
    for word, span in draft.clause_spans.items():
        ctx.error("E204", f"{an(draft.kind)} takes no `{word}`", span)
    before, ctx.columns = ctx.columns, Columns(None)
    provenance, ctx.provenance = ctx.provenance, {}
    (unpublished, path), ctx.unpublished = (ctx.unpublished, ctx.path), []
    try:
        base, fields = _base(ctx, draft)
        if base is FAILED:
            return FAILED
        owner = f"{draft.kind} `{draft.name}`"
        given = fill(ctx, model, draft.settings, owner, draft.span, ("name", *fields), "", base)
        if ctx.unpublished and draft.kind in ("model", "prompt"):
            message = f"{owner}: what is asked of a model cannot be unpublished"
            ctx.error("E301", message, draft.span, "leave it out, or say it of the stage")
    finally:
        ctx.columns, ctx.provenance = before, provenance
        ctx.unpublished, ctx.path = unpublished, path
    values = {"name": draft.name, **fields, **given}
    if FAILED in values.values():
        return FAILED
    made = base.model_copy(update=values) if base is not None else model(**values)
    return _completed(made, draft)


def _completed(made: Any, draft: Draft) -> Any:
    """What follows from the rest: a vision-language family sees pictures."""
    seen = (
        isinstance(made, Model)
        and isinstance(made.source, Fresh)
        and "vision" not in draft.settings
    )
    if seen and made.source.family == "qwen2_5_vl":
        return made.model_copy(update={"vision": True})
    return made


def _base(ctx: Context, draft: Draft) -> tuple[Any, dict[str, Any]]:
    """What a draft derives from, and the fields that its expression gives: of a model its source."""
    if draft.base is None:
        return None, {}
    bound = ctx.follow(draft.base)
    if draft.kind == "model" and isinstance(bound.expr, s.CallExpr):
        source = conform(ctx, bound, ModelSource, Place("model"))
        return (FAILED, {}) if source is FAILED else (None, {"source": source})
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED, {}
    if isinstance(value, Draft) and value.kind == draft.kind:
        return ctx.thing(value), {}
    if isinstance(value, Draft) and (value.kind, draft.kind) == ("gpu", "hardware"):
        gpu = ctx.thing(value)
        return (FAILED, {}) if gpu is FAILED else (None, {"gpu": gpu})
    if isinstance(value, _MODELS[draft.kind]):
        return value, {}
    message = f"{an(draft.kind)} cannot be made of {describe(value)}"
    hint = 'such as `model m = hf("…")`' if isinstance(value, Choice | str) else None
    return ctx.error("E309", message, bound.expr.span, hint), {}


def derived(ctx: Context, draft: Draft, depth: int = 0) -> Draft | None:
    """A stage with what it derives from laid under it: ``eval after = before with reasoner``. None after a report."""
    if draft.base is None:
        return draft
    if depth >= MAX_DEPTH:
        ctx.error("E212", f"`{draft.name}` derives from itself", draft.span)
        return None
    found = look_up(draft.base.scope, draft.base.expr)
    if isinstance(found, Draft) and found.kind == draft.kind:
        base = derived(ctx, found, depth + 1)
        return None if base is None else layered(base, draft)
    value = found if found is not None else evaluate(ctx, draft.base)
    if value is not FAILED:
        kind = an(draft.kind)
        message = f"{kind} derives from {kind}, not from {describe(value)}"
        ctx.error("E309", message, draft.base.expr.span)
    return None
