"""Row expressions: names to columns, verifiers and values; types; then how they run (``expressions.py``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.lets import inlined
from omrlang.check.rows import operators
from omrlang.check.rows.calls import call
from omrlang.check.rows.names import name
from omrlang.check.rows.reading import Reading, Typed, a_type, bare, fits, plain, type_list
from omrlang.check.values import quantity
from omrlang.expressions import row_expression
from omrlang.format import format_expression
from omrlang.scope import Bound
from omrlang.types import ExprType, Lit, RowExpr, construct


def _as_name(bound: Bound) -> Bound:
    """A bare word of ``--set`` that names nothing in the file is a column or a verifier here, and no text."""
    expr = bound.expr
    is_bare = isinstance(expr, s.Text) and bound.layer == "set" and expr.span.text == expr.value
    if isinstance(expr, s.Text) and is_bare and expr.value.isidentifier():
        return bound.of(s.Name(expr.span, expr.value))
    return bound


def row_value(
    ctx: Context, bound: Bound, want: tuple[ExprType, ...], label: str
) -> RowExpr | Failed:
    """A setting's expression over the row, of one of the types ``want``."""
    bound = _as_name(bound)
    if label == "by":
        ctx = replace(ctx, columns=ctx.columns.given)
    typed = Reading(ctx, bound, label, _read).typed(bound.expr)
    if isinstance(typed, Failed):
        return FAILED
    tree, type_ = typed
    if not fits(type_, want):
        message = f"`{label}` takes {type_list(want)}, this is {a_type(type_)}"
        return ctx.error("E301", message, bound.expr.span)
    # As if no `let` had been used: what a diff compares and a dropped row tells is then what was asked.
    whole = inlined(bound, ctx.columns.names or ())
    text = format_expression(bare(whole))
    texts = [format_expression(operand) for operand in _operands(whole)]
    columns: Literal["schema", "raw"] = "raw" if ctx.columns.raw else "schema"
    return row_expression(tree, text, type_, texts, columns)


def _operands(expr: s.Expr) -> list[s.Expr]:
    """The top-level operands of ``and``, without the brackets around them."""
    expr = bare(expr)
    if isinstance(expr, s.BinaryExpr) and expr.op == "and":
        return _operands(expr.left) + _operands(expr.right)
    return [expr]


def _read(rows: Reading, expr: s.Expr) -> Typed | Failed:
    ctx = rows.ctx
    match expr:
        case s.Paren():
            return rows.typed(expr.inner)
        case s.Number():
            return _number(ctx, expr)
        case s.Text():
            return construct(Lit, value=expr.value), "text"
        case s.Constant():
            return construct(Lit, value=expr.value), "any" if expr.value is None else "bool"
        case s.Name() | s.Attr():
            return name(rows, expr)
        case s.ListExpr():
            return operators.list_of(rows, expr)
        case s.CallExpr():
            return call(rows, expr)
        case s.IndexExpr():
            return operators.index(rows, expr)
        case s.UnaryExpr():
            return operators.unary(rows, expr)
        case s.BinaryExpr():
            return operators.binary(rows, expr)
        case s.RangeExpr():
            return ctx.error("E301", "a range stands to the right of `in` only", expr.span)


def _number(ctx: Context, expr: s.Number) -> Typed | Failed:
    value = quantity(expr, ctx.reporter)
    if isinstance(value, Failed):
        return FAILED
    if value.unit not in (None, "fraction"):
        return ctx.error(
            "E304", f"a row expression has no units, this has `{value.unit}`", expr.span
        )
    return construct(Lit, value=plain(value.value)), "number"
