"""Names to what they stand for: declared things, and stages that give rows."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from omrlang import syntax as s
from omrlang.check.annotations import THINGS
from omrlang.check.context import FAILED, Context, Failed, Place
from omrlang.check.values import describe, evaluate
from omrlang.diagnostics import Edit, Fix
from omrlang.scope import MAKES_ROWS, Bound, Draft
from omrlang.source import Span
from omrlang.types import Hardware, RowSets, construct


def thing_of(ctx: Context, bound: Bound, want: type[BaseModel], place: Place) -> Any:
    value = evaluate(ctx, bound)
    kind = THINGS[want]
    if value is FAILED:
        return FAILED
    if isinstance(value, Draft) and value.kind == kind:
        return ctx.thing(value)
    if isinstance(value, Draft) and value.kind == "gpu" and want is Hardware:
        made = ctx.thing(value)
        return FAILED if made is FAILED else construct(Hardware, name=value.name, gpu=made, count=1)
    if isinstance(value, want):
        return value
    message = (
        f"`{place.label}` takes {'' if kind == 'hardware' else 'a '}{kind}, not {describe(value)}"
    )
    return ctx.error("E309", message, bound.expr.span, f"`{kind} NAME …` declares one")


def rows_of(ctx: Context, bound: Bound, label: str) -> Draft | Failed:
    """The stage whose rows are meant."""
    value = evaluate(ctx, ctx.follow(bound))
    if isinstance(value, Failed):
        return FAILED
    if isinstance(value, Draft) and value.kind in MAKES_ROWS:
        return value
    message = f"`{label}` takes a stage that gives rows, not {describe(value)}"
    return ctx.error("E309", message, bound.expr.span)


def row_sets(ctx: Context, bound: Bound, place: Place) -> Any:
    """``[benchmarks.aime24, held_out]``; one name needs no brackets."""
    found = row_set_names(ctx, bound, place.label)
    return FAILED if found is FAILED else construct(RowSets, names=found)


def row_set_names(ctx: Context, bound: Bound, label: str) -> Any:
    """The names of the stages in a list, or of the one that stands there."""
    bound = ctx.follow(bound)
    items = (
        bound.expr.items
        if isinstance(bound.expr, s.ListExpr)
        else (s.Item(bound.expr.span, bound.expr),)
    )
    found = [_row_set(ctx, bound, item, label) for item in items]
    if not found:
        return ctx.error("E301", f"`{label}` names no rows", bound.expr.span)
    return FAILED if FAILED in found else tuple(found)


def _row_set(ctx: Context, bound: Bound, item: s.Item, label: str) -> Any:
    if item.amount is not None:
        message = f"`{label}` takes no amounts here"
        fix = without_amount(item)
        return ctx.error("E301", message, item.amount.span, "a `mix` does", fix=fix)
    draft = rows_of(ctx, bound.of(item.value), label)
    return FAILED if isinstance(draft, Failed) else draft.name


def without_amount(item: s.Item) -> Fix:
    """An amount where none is taken is left out."""
    end = item.value.span.end
    stray = Span(item.span.file, end, item.span.end)
    return Fix(f"leave out `{stray.text.strip()}`", (Edit(stray, ""),))
