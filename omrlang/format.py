"""Text or syntax to formatted text. Keys are never reordered, comments stay where they stand, twice is once."""

from __future__ import annotations

from typing import assert_never

from omrlang import syntax as s

WIDTH = 100
INDENT = "  "


def format_expression(expr: s.Expr) -> str:
    """An expression on one line, with its brackets as written."""
    match expr:
        case s.Number() | s.Text():
            return _literal(expr)
        case s.Constant():
            return "none" if expr.value is None else str(expr.value).lower()
        case s.Name():
            return expr.id
        case s.Attr():
            return f"{format_expression(expr.base)}.{expr.name.id}"
        case s.ListExpr():
            return f"[{', '.join(format_item(item) for item in expr.items)}]"
        case s.CallExpr():
            args = ", ".join(format_arg(arg) for arg in expr.args)
            return f"{format_expression(expr.fn)}({args})"
        case s.IndexExpr():
            return f"{format_expression(expr.base)}[{format_expression(expr.at)}]"
        case s.UnaryExpr():
            sign = "not " if expr.op == "not" else "-"
            return f"{sign}{format_expression(expr.x)}"
        case s.BinaryExpr():
            return f"{format_expression(expr.left)} {expr.op} {format_expression(expr.right)}"
        case s.RangeExpr():
            return f"{format_expression(expr.lo)} .. {format_expression(expr.hi)}"
        case s.Paren():
            return f"({format_expression(expr.inner)})"
        case _:
            assert_never(expr)


def format_item(item: s.Item) -> str:
    value = format_expression(item.value)
    return value if item.amount is None else f"{value}: {format_expression(item.amount)}"


def format_arg(arg: s.Arg) -> str:
    value = format_expression(arg.value)
    return value if arg.name is None else f"{arg.name.id} = {value}"


def _literal(expr: s.Number | s.Text) -> str:
    """As written; a number's unit is set off by single spaces."""
    if isinstance(expr, s.Text):
        return expr.span.text
    head = expr.span.text.split("/")[0].split()[0]
    return f"{head}{' ' if expr.unit else ''}{expr.unit or ''}"
