"""A ``let`` to whether it says something of a row; and what is wrong with one, also where nothing names it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

from omrlang import syntax as s
from omrlang.check.annotations import choice_words
from omrlang.check.context import Context
from omrlang.check.values import evaluate
from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.scope import Bound, Draft, Scope, look_up

_OF_ROWS = (
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "and",
    "or",
    "in",
    "not in",
    "is",
    "is not",
    "matches",
)


def looks_at_rows(bound: Bound) -> bool:
    """Whether a value is known only where there is a row: it names a column or a verifier, or compares."""
    return any(map(_of_row, _parts(bound)))


def _of_row(bound: Bound) -> bool:
    match bound.expr:
        case s.BinaryExpr(op=op):
            return op in _OF_ROWS
        case s.IndexExpr():
            return True
        case s.CallExpr(fn=s.Name(id=word)) | s.Name(id=word):
            found = look_up(bound.scope, s.Name(bound.expr.span, word))
            if isinstance(found, Draft):
                return found.kind == "verifier"
            return found is None and (word in COLUMNS or word in FUNCTIONS)
        case _:
            return False


def _parts(bound: Bound) -> Iterator[Bound]:
    """An expression and all that it is made of, through the lets that it names."""
    todo, seen = [bound], set()
    while todo:
        named: list[Bound] = []
        yield from _own_parts(todo.pop(), named)
        for found in named:
            if id(found) not in seen:
                seen.add(id(found))
                todo.append(found)


def _own_parts(bound: Bound, named: list[Bound]) -> Iterator[Bound]:
    """An expression and all that stands in it; the lets that it names are left in ``named``."""
    todo = [bound]
    while todo:
        part = todo.pop()
        found = look_up(part.scope, part.expr)
        if isinstance(found, Bound):
            named.append(found)
        yield part
        todo.extend(part.of(inner) for inner in s.parts_of(part.expr))


def _is_word(part: Bound) -> bool:
    """`sequence` and its like stand for themselves where a setting takes them."""
    expr = part.expr
    is_free = isinstance(expr, s.Name) and look_up(part.scope, expr) is None
    return is_free and expr.span.text in choice_words()


def inlined(bound: Bound, columns: Collection[str]) -> s.Expr:
    """An expression with what its lets stand for in their places, in brackets where they hold an operator.

    A column counts before a ``let`` of its name. Only of expressions that were read: no ``let`` leads to itself.
    """
    return _inlined(bound, bound.expr, columns)


Tree = TypeVar("Tree", bound=s.Node)


def _inlined(bound: Bound, node: Tree, columns: Collection[str]) -> Tree:
    if isinstance(node, s.Name | s.Attr):
        found = None if node.span.text in columns else look_up(bound.scope, node)
        return node if not isinstance(found, Bound) else cast(Tree, _in_brackets(found, columns))
    kept = ("name", "fn")
    changed: dict[str, Any] = {}
    for item in fields(node):
        value = getattr(node, item.name)
        if isinstance(value, s.Node) and item.name not in kept:
            changed[item.name] = _inlined(bound, value, columns)
        elif isinstance(value, tuple):
            changed[item.name] = tuple(_inlined(bound, part, columns) for part in value)
    return replace(node, **changed)


def _in_brackets(found: Bound, columns: Collection[str]) -> s.Expr:
    inner = _inlined(found, found.expr, columns)
    has_operator = isinstance(inner, s.BinaryExpr | s.UnaryExpr | s.RangeExpr)
    return s.Paren(inner.span, inner) if has_operator else inner


def check_lets(ctx: Context, scope: Scope) -> None:
    """Report units that do not exist, sums that cannot be and names that nothing defines."""
    lets = _Lets()
    for bound in scope.lets.values():
        lets.visit(bound)
    for bound in scope.lets.values():
        if id(bound) not in lets.waiting:
            evaluate(ctx, bound)
    for part in lets.numbers:
        evaluate(ctx, part)


class _Lets:
    """Every let looked at once, however many name it: ``waiting`` are those, by identity, whose value takes a row, or a
    setting that knows their words; ``numbers`` are the numbers that stand in any of them."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.numbers: list[Bound] = []
        self._named: dict[int, list[Bound]] = {}

    def visit(self, bound: Bound) -> None:
        """This let and all that it leads to, those that others stand on first."""
        todo = [bound]
        while todo:
            one = todo.pop()
            if id(one) not in self._named:
                todo.append(one)
                todo.extend(self._look(one))
            elif any(id(found) in self.waiting for found in self._named[id(one)]):
                self.waiting.add(id(one))

    def _look(self, bound: Bound) -> list[Bound]:
        """What stands in a let of its own; the lets that it names and that were not looked at yet."""
        named = self._named[id(bound)] = []
        for part in _own_parts(bound, named):
            if _of_row(part) or _is_word(part):
                self.waiting.add(id(bound))
            if isinstance(part.expr, s.Number):
                self.numbers.append(part)
        return [found for found in named if id(found) not in self._named]
