"""What one row expression is read with, and the words for the types in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from omrlang import syntax as s
from omrlang.check.context import Context, Failed
from omrlang.scope import Bound
from omrlang.types import ExprNode, ExprType

Typed: TypeAlias = tuple[ExprNode, ExprType]


@dataclass(frozen=True, slots=True)
class Reading:
    """``label`` is the setting that the expression stands in. ``read`` turns a part into its tree and type; it is
    handed in because calls and operators hold each other."""

    ctx: Context
    bound: Bound
    label: str
    read: Callable[[Reading, s.Expr], Typed | Failed]

    def typed(self, expr: s.Expr) -> Typed | Failed:
        return self.read(self, expr)


def fits(have: ExprType, want: tuple[ExprType, ...]) -> bool:
    """A truth counts as 1 or 0 where a number is wanted."""
    return "any" in (have, *want) or have in want or (have == "bool" and "number" in want)


_WORDS: dict[ExprType, str] = {
    "bool": "a condition",
    "number": "a number",
    "text": "a text",
    "list": "a list",
    "any": "any value",
}


def a_type(type_: ExprType) -> str:
    return _WORDS[type_]


def type_list(types: tuple[ExprType, ...]) -> str:
    return " or ".join(_WORDS[type_] for type_ in types)


def bare(expr: s.Expr) -> s.Expr:
    while isinstance(expr, s.Paren):
        expr = expr.inner
    return expr


def plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
