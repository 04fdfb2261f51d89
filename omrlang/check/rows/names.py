"""A name in a row expression to the column, the bare call or the ``let`` that it stands for."""

from __future__ import annotations

import json
from dataclasses import replace

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.lets import looks_at_rows
from omrlang.check.rows.calls import call, verifier
from omrlang.check.rows.reading import Reading, Typed, plain
from omrlang.check.unpublished import is_unpublished, note
from omrlang.check.values import Quantity, evaluate
from omrlang.diagnostics import Hint, did_you_mean
from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.parse import RESERVED
from omrlang.scope import Bound, Draft, Scope, look_up, report_unknown
from omrlang.source import Span
from omrlang.types import Col, Lit, construct


def name(rows: Reading, expr: s.Name | s.Attr) -> Typed | Failed:
    ctx, word = rows.ctx, expr.span.text
    if isinstance(expr, s.Name) and expr.id == "null":
        return construct(Lit, value=None), "any"
    if is_unpublished(rows.bound.of(expr)):
        note(ctx, "")
        return construct(Lit, value=None), "any"
    if isinstance(expr, s.Attr) and isinstance(expr.base, s.Name) and expr.base.id == "extra":
        return column(ctx, f"extra.{expr.name.id}", expr.span)
    if isinstance(expr, s.Name):
        if _has_column(rows, expr.id):
            return column(ctx, expr.id, expr.span)
        if expr.id in FUNCTIONS and look_up(rows.bound.scope, expr) is None:
            return call(rows, s.CallExpr(expr.span, expr, ()))
    found = look_up(rows.bound.scope, expr)
    if isinstance(found, Bound):
        return _let(rows, expr, found)
    if isinstance(found, Draft) and found.kind == "verifier":
        return verifier(rows, found, expr.span)
    return _unknown(rows, expr, word)


def _let(rows: Reading, expr: s.Name | s.Attr, found: Bound) -> Typed | Failed:
    """A ``let`` counts as the value that it stands for, or as what it says of the row: ``let right = answer_matches``."""
    if looks_at_rows(found):
        inner = replace(rows, bound=found)
        typed: Typed | Failed = rows.ctx.guarded(
            found, expr.span.text, expr.span, lambda: inner.typed(found.expr)
        )
        return typed
    value = evaluate(rows.ctx, rows.bound.of(expr))
    match value:
        case Failed():
            return FAILED
        case bool():
            return construct(Lit, value=value), "bool"
        case str():
            return construct(Lit, value=value), "text"
        case Quantity(unit=None) | Quantity(unit="fraction"):
            return construct(Lit, value=plain(value.value)), "number"
        case _:
            message = f"`{expr.span.text}` is no value that a row can be compared with"
            return rows.ctx.error("E301", message, expr.span)


def _has_column(rows: Reading, name: str) -> bool:
    """Where nobody has seen the data yet, any name is a column, unless the file has a ``let`` of that name: then only
    ``raw["…"]`` means the column."""
    columns = rows.ctx.columns
    if columns.names is None and columns.raw:
        return name not in rows.bound.scope.lets
    return name in (columns.names or COLUMNS)


def column(ctx: Context, name: str, span: Span) -> Typed | Failed:
    columns = ctx.columns
    if columns.raw and columns.names is None:
        return construct(Col, name=name), "any"
    known = columns.names if columns.names is not None else dict(COLUMNS)
    if name in known:
        return construct(Col, name=name), known[name]
    if columns.names is None and name.startswith("extra."):
        return construct(Col, name=name), "text"
    hint = did_you_mean(name, known, f"{columns.what} has")
    hint = hint if span.text.startswith('"') else _as_written(hint)
    return ctx.error("E209", f"{columns.what} has no column `{name}`", span, hint)


def _as_written(hint: str | None) -> str | None:
    """A raw column whose name is no word stands in `raw["…"]`."""
    if isinstance(hint, Hint) and not _is_word(hint.instead):
        return Hint(hint, hint.word, f"raw[{json.dumps(hint.instead, ensure_ascii=False)}]")
    return hint


def _is_word(name: str) -> bool:
    """Whether a column's name can be written as it is; `extra.NAME` can."""
    parts = name.split(".", 1) if name.startswith("extra.") else [name]
    return all(part.isidentifier() and part not in RESERVED for part in parts)


def _unknown(rows: Reading, expr: s.Name | s.Attr, word: str) -> Failed:
    ctx = rows.ctx
    found = look_up(rows.bound.scope, expr)
    if isinstance(found, Draft):
        message = f"`{word}` is a {found.kind}; a row expression has no use for it here"
        return ctx.error("E309", message, expr.span)
    if isinstance(found, Scope):
        return ctx.error("E309", f"`{word}` is a module", expr.span)
    if isinstance(expr, s.Attr):
        report_unknown(rows.bound.scope, expr, ctx.reporter)
        return FAILED
    if rows.bound.scope.has_lost(word):
        return FAILED
    known = ctx.columns.names if ctx.columns.names is not None else COLUMNS
    if word in COLUMNS and not ctx.columns.raw:
        return _no_column_here(ctx, word, expr.span)
    bare = [name for name, function in FUNCTIONS.items() if not function.args]
    hint = did_you_mean(word, [*known, *bare, *rows.bound.scope.lets, "true", "false", "null"])
    if ctx.columns.raw:
        hint = _as_written(hint or did_you_mean(word, known, f"{ctx.columns.what} has"))
        return ctx.error("E209", f"{ctx.columns.what} has no column `{word}`", expr.span, hint)
    return ctx.error("E201", f"unknown name `{word}`", expr.span, hint)


def _no_column_here(ctx: Context, word: str, span: Span) -> Failed:
    message = f"{ctx.columns.what} has no column `{word}`"
    hint = f"the row has {', '.join(ctx.columns.names)}" if ctx.columns.names else None
    return ctx.error("E209", message, span, hint)
