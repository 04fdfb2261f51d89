"""Operators, lists and places in a row expression to their tree, each side of the type that the operator takes."""

from __future__ import annotations

from typing import Literal, cast

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.rows.names import column
from omrlang.check.rows.reading import Reading, Typed, a_type, bare, fits, type_list
from omrlang.types import Between, Binary, ExprNode, ExprType, Index, ListOf, Lit, Unary, construct


def list_of(rows: Reading, expr: s.ListExpr) -> Typed | Failed:
    items: list[ExprNode] = []
    failed = False
    for item in expr.items:
        if item.amount is not None:
            rows.ctx.error("E101", "unexpected `:` in a list of values", item.amount.span)
        typed = rows.typed(item.value)
        if isinstance(typed, Failed):
            failed = True
        else:
            items.append(typed[0])
    return FAILED if failed else (construct(ListOf, items=tuple(items)), "list")


def index(rows: Reading, expr: s.IndexExpr) -> Typed | Failed:
    if isinstance(expr.base, s.Name) and expr.base.id == "raw" and isinstance(expr.at, s.Text):
        if rows.ctx.columns.raw:
            return column(rows.ctx, expr.at.value, expr.at.span)
        return rows.ctx.error("E209", "`raw` works in the columns of a source only", expr.base.span)
    base, at = rows.typed(expr.base), rows.typed(expr.at)
    if isinstance(base, Failed) or isinstance(at, Failed):
        return FAILED
    if not fits(base[1], ("list", "text")) or base[1] == "bool":
        message = f"only a list can be indexed, this is {a_type(base[1])}"
        return rows.ctx.error("E301", message, expr.base.span)
    if at[1] == "text" and rows.ctx.columns.raw:
        return construct(Index, x=base[0], at=at[0]), "any"  # a field: `conversations[0]["value"]`
    if not fits(at[1], ("number",)) or at[1] == "bool":
        return rows.ctx.error(
            "E301", f"an index is a number, this is {a_type(at[1])}", expr.at.span
        )
    return construct(Index, x=base[0], at=at[0]), "text" if rows.ctx.columns.raw is False else "any"


def unary(rows: Reading, expr: s.UnaryExpr) -> Typed | Failed:
    typed = rows.typed(expr.x)
    if isinstance(typed, Failed):
        return FAILED
    want: ExprType = "bool" if expr.op == "not" else "number"
    if not fits(typed[1], (want,)):
        return rows.ctx.error(
            "E301", f"`{expr.op}` takes {a_type(want)}, this is {a_type(typed[1])}", expr.x.span
        )
    if expr.op == "-" and isinstance(typed[0], Lit) and isinstance(typed[0].value, int | float):
        return construct(Lit, value=-typed[0].value), "number"
    return construct(Unary, op="not" if expr.op == "not" else "neg", x=typed[0]), want


def binary(rows: Reading, expr: s.BinaryExpr) -> Typed | Failed:
    op = expr.op
    if op in ("in", "not in") and isinstance(bare(expr.right), s.RangeExpr):
        return _between(rows, expr, cast(s.RangeExpr, bare(expr.right)))
    left, right = _side(rows, op, expr.left), _side(rows, op, expr.right)
    if isinstance(left, Failed) or isinstance(right, Failed):
        return FAILED
    if not _go_together(rows.ctx, expr, left, right):
        return FAILED
    if op in ("not in", "is not"):
        inner = construct(Binary, op="in" if op == "not in" else "is", left=left[0], right=right[0])
        return construct(Unary, op="not", x=inner), "bool"
    node = construct(Binary, op=cast(Literal["+"], op), left=left[0], right=right[0])
    return node, _binary_type(op, left[1], right[1])


def _binary_type(op: str, left: ExprType, right: ExprType) -> ExprType:
    if op in ("-", "*", "/"):
        return "number"
    if op != "+":
        return "bool"
    if "text" in (left, right):
        return "text"
    return "any" if "any" in (left, right) else "number"


def _between(rows: Reading, expr: s.BinaryExpr, span: s.RangeExpr) -> Typed | Failed:
    if span.mid is not None:
        return rows.ctx.error("E301", "`in` takes a range `lo .. hi`", span.span)
    parts = [rows.typed(part) for part in (expr.left, span.lo, span.hi)]
    typed = [part for part in parts if not isinstance(part, Failed)]
    if len(typed) < 3:
        return FAILED
    for part, at in zip(typed, (expr.left, span.lo, span.hi), strict=True):
        if not fits(part[1], ("number",)):
            return rows.ctx.error(
                "E301", f"a range is of numbers, this is {a_type(part[1])}", at.span
            )
    node = construct(Between, x=typed[0][0], lo=typed[1][0], hi=typed[2][0])
    return (construct(Unary, op="not", x=node) if expr.op == "not in" else node), "bool"


_TAKES: dict[str, tuple[ExprType, ...]] = {
    "and": ("bool",),
    "or": ("bool",),
    "-": ("number",),
    "*": ("number",),
    "/": ("number",),
    "+": ("number", "text"),
    "<": ("number", "text"),
    "<=": ("number", "text"),
    ">": ("number", "text"),
    ">=": ("number", "text"),
    "matches": ("text",),
}


def _side(rows: Reading, op: str, expr: s.Expr) -> Typed | Failed:
    """One side of an operator, of a type that the operator takes on either."""
    typed = rows.typed(expr)
    if isinstance(typed, Failed) or op not in _TAKES or fits(typed[1], _TAKES[op]):
        return typed
    message = f"`{op}` takes {type_list(_TAKES[op])}, this is {a_type(typed[1])}"
    return rows.ctx.error("E301", message, expr.span)


def _go_together(ctx: Context, expr: s.BinaryExpr, left: Typed, right: Typed) -> bool:
    """Whether two sides go with each other; reports the one that does not."""
    op = expr.op
    if op == "matches" and isinstance(right[0], Lit) and isinstance(right[0].value, str):
        complaint = pattern_complaint(right[0].value)
        if complaint is not None:
            ctx.error("E312", f"RE2 does not read this pattern: {complaint}", expr.right.span)
            return False
    if op in ("in", "not in") and not fits(right[1], ("list", "text")):
        message = f"`in` takes a list, a text or a range on its right, this is {a_type(right[1])}"
        ctx.error("E301", message, expr.right.span)
        return False
    if op in ("in", "not in") and not fits(left[1], _looked_for(right[1])):
        where = "a text" if right[1] == "text" else "a list"
        message = f"`in` looks for {type_list(_looked_for(right[1]))} in {where}, this is {a_type(left[1])}"
        ctx.error("E301", message, expr.left.span)
        return False
    if op in ("in", "not in") and not _could_be_in(ctx, left[1], expr.right, right[0]):
        return False
    if op in ("is", "is not") and right[0] != construct(Lit, value=None):
        ctx.error(
            "E301", f"`{op}` compares with `null` only", expr.right.span, "`==` compares values"
        )
        return False
    if op in ("==", "!=", "<", "<=", ">", ">=", "+") and not _same(left[1], right[1]):
        message = f"`{op}` stands between {a_type(left[1])} and {a_type(right[1])}"
        ctx.error(
            "E301", message, expr.op_span, "`text(…)` and `number(…)` turn one into the other"
        )
        return False
    return True


def _could_be_in(ctx: Context, left: ExprType, written: s.Expr, right: ExprNode) -> bool:
    """Whether each literal of a list is of the type that is looked for in it; reports those that are not."""
    items = bare(written)
    if left not in ("text", "number") or not isinstance(right, ListOf):
        return True
    assert isinstance(items, s.ListExpr), "a ListOf is made of a list"
    strange = [
        (item.span, "a text" if isinstance(node.value, str) else "a number")
        for item, node in zip(items.items, right.items, strict=True)
        if isinstance(node, Lit)
        and node.value is not None
        and isinstance(node.value, str) != (left == "text")
    ]
    for span, found in strange:
        ctx.error("E301", f"`in` looks for {a_type(left)}, this is {found}", span)
    return not strange


def _looked_for(where: ExprType) -> tuple[ExprType, ...]:
    """What can be in a text, or in a list, whose items are texts or numbers."""
    return ("text",) if where == "text" else ("text", "number")


def pattern_complaint(pattern: str) -> str | None:
    """What is wrong with a regular expression; imported only where one is used, so that a check starts lightly."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        return str(error.args[0].decode(errors="replace"))
    except UnicodeEncodeError:
        return "it holds half a character"
    return None


def _same(left: ExprType, right: ExprType) -> bool:
    numbers = {"bool", "number"}
    return left == right or "any" in (left, right) or {left, right} <= numbers
