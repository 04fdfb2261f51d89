"""Drafts of models, devices, machines and prompts to their values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from omrlang import syntax as s
from omrlang.check.conform import conform
from omrlang.check.context import FAILED, Columns, Context, Failed, Place
from omrlang.check.fill import fill
from omrlang.check.products import check_fresh
from omrlang.check.values import Choice, an, describe, evaluate
from omrlang.diagnostics import did_you_mean
from omrlang.hir import Provenance
from omrlang.parse import MAX_DEPTH
from omrlang.plugins import Unreadable, read_code, split_entry
from omrlang.scope import Bound, Draft, layered, look_up
from omrlang.types import (
    Fresh,
    Gpu,
    Hardware,
    Model,
    ModelSource,
    Prompt,
    Python,
    Verifier,
    construct,
)

MODELS: dict[str, type[BaseModel]] = {
    "model": Model,
    "gpu": Gpu,
    "hardware": Hardware,
    "prompt": Prompt,
    "verifier": Verifier,
}

_EXAMPLES = {
    "model": 'model m = hf("…")',
    "verifier": 'verifier v = python("my_pkg.rewards:score") { version = 1 }',
}

_NO_SETTINGS = ("name", "folder", "files", "code")


def build(ctx: Context, draft: Draft) -> Any:
    """The value of a draft that is no stage, or FAILED after a report."""
    model = MODELS[draft.kind]
    for word, span in draft.clause_spans.items():
        ctx.error("E204", f"{an(draft.kind)} takes no `{word}`", span)
    before, ctx.columns = ctx.columns, Columns(None)
    provenance, ctx.provenance = ctx.provenance, {}
    (unpublished, path), ctx.unpublished, ctx.path = (ctx.unpublished, ctx.path), [], "source"
    try:
        base, fields = _base(ctx, draft)
        owner = f"{draft.kind} `{draft.name}`"
        given = fill(
            ctx, model, draft.settings, owner, draft.span, (*_NO_SETTINGS, *fields), "", base
        )
        if ctx.unpublished and draft.kind in ("model", "prompt"):
            message = f"{owner}: what is asked of a model cannot be unpublished"
            ctx.error("E301", message, draft.span, "leave it out, or say it of the stage")
        ctx.origins[draft] = {**_origins(ctx, draft), **ctx.provenance}
    finally:
        ctx.columns, ctx.provenance = before, provenance
        ctx.unpublished, ctx.path = unpublished, path
    values = {"name": draft.name, **fields, **given}
    if base is FAILED or FAILED in values.values():
        return FAILED
    made = base.model_copy(update=values) if base is not None else construct(model, **values)
    return _completed(made, draft)


def _origins(ctx: Context, draft: Draft) -> dict[str, Provenance]:
    """Who set what on the thing that this one derives from; under "" who wrote what it is made of."""
    if draft.base is None:
        return {}
    bound = ctx.follow(draft.base)
    found = look_up(bound.scope, bound.expr)
    if isinstance(found, Draft) and found.kind == draft.kind:
        return ctx.origins.get(found, {})
    return {"": Provenance(bound.layer, bound.expr.span)}


def _completed(made: Any, draft: Draft) -> Any:
    """What follows from the rest: a vision-language family sees pictures."""
    seen = isinstance(made, Model) and isinstance(made.source, Fresh) and not draft.sets("vision")
    if seen and made.source.sees_images:
        return made.model_copy(update={"vision": True})
    return made


def _base(ctx: Context, draft: Draft) -> tuple[Any, dict[str, Any]]:
    """What a draft derives from, and the fields that its expression gives: of a model its source."""
    if draft.base is None:
        return _made_of_nothing(ctx, draft), {}
    bound = ctx.follow(draft.base)
    if draft.kind == "model" and isinstance(bound.expr, s.CallExpr):
        source = conform(ctx, bound, ModelSource, Place("model"))
        if isinstance(source, Fresh):
            check_fresh(ctx, source, bound.expr.span)
        return (FAILED, {}) if source is FAILED else (None, {"source": source})
    if draft.kind == "verifier" and isinstance(bound.expr, s.CallExpr):
        source = conform(ctx, bound, Python, Place("verifier"))
        return (FAILED, {}) if source is FAILED else (None, _code(ctx, bound, source))
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED, {}
    if isinstance(value, Draft) and value.kind == draft.kind:
        return ctx.thing(value), {}
    if isinstance(value, Draft) and (value.kind, draft.kind) == ("gpu", "hardware"):
        gpu = ctx.thing(value)
        return (FAILED, {}) if gpu is FAILED else (None, {"gpu": gpu})
    if isinstance(value, MODELS[draft.kind]):
        return value, {}
    message = f"{an(draft.kind)} cannot be made of {describe(value)}"
    example = _EXAMPLES.get(draft.kind, _EXAMPLES["model"])
    hint = f"such as `{example}`" if isinstance(value, Choice | str) else None
    return ctx.error("E309", message, bound.expr.span, hint), {}


def _made_of_nothing(ctx: Context, draft: Draft) -> Failed | None:
    """A model and a verifier are somewhere; the other things are what their settings say."""
    if draft.kind not in _EXAMPLES:
        return None
    hint = f"such as `{_EXAMPLES[draft.kind]}`"
    return ctx.error("E302", f"{draft.kind} `{draft.name}` is made of nothing", draft.span, hint)


def _code(ctx: Context, bound: Bound, source: Python) -> dict[str, Any]:
    """The fields of a Python verifier whose code is there and can be read."""
    home = bound.scope.folder
    try:
        code = read_code(home, source.entry)
    except Unreadable as error:
        hint = (
            'such as python("my_pkg.rewards:score") for the function `score` of my_pkg/rewards.py'
        )
        return {
            "source": ctx.error("E311", f"code that cannot be read: {error}", bound.expr.span, hint)
        }
    function = split_entry(source.entry)[1]
    if code.defines is not None and function not in code.defines:
        message = f"{code.files[0]} defines no `{function}`"
        near = did_you_mean(function, code.defines)
        return {"source": ctx.error("E311", message, bound.expr.span, near)}
    folder = Path(os.path.relpath(home, ctx.root.home)).as_posix()
    files = tuple(str(file) for file in code.files)
    return {"source": source, "folder": folder, "files": files, "code": code.digest}


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
