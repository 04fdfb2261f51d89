"""The syntax tree: what a file says, before any name means anything.

Every node starts with its span, which takes no part in equality.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeAlias

from omrlang.source import SourceFile, Span


@dataclass(frozen=True, slots=True)
class Node:
    span: Span = field(compare=False, repr=False)


# ---- expressions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number(Node):
    """``value`` with its suffix applied (``10%`` is 0.1). ``unit`` is as written (``pack / gpu``); ``per_cent``
    says that it was a percentage, ``dollars`` that a ``$`` stood before it."""

    value: Decimal
    unit: str | None = None
    per_cent: bool = False
    dollars: bool = False


@dataclass(frozen=True, slots=True)
class Text(Node):
    value: str


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """``true``, ``false`` or ``none``."""

    value: bool | None


@dataclass(frozen=True, slots=True)
class Name(Node):
    id: str


@dataclass(frozen=True, slots=True)
class Attr(Node):
    base: Expr
    name: Name


@dataclass(frozen=True, slots=True)
class Item(Node):
    """One entry of a list; ``amount`` is what stands after a colon."""

    value: Expr
    amount: Expr | None = None


@dataclass(frozen=True, slots=True)
class ListExpr(Node):
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Arg(Node):
    name: Name | None
    value: Expr


@dataclass(frozen=True, slots=True)
class CallExpr(Node):
    fn: Expr
    args: tuple[Arg, ...]


@dataclass(frozen=True, slots=True)
class IndexExpr(Node):
    base: Expr
    at: Expr


@dataclass(frozen=True, slots=True)
class UnaryExpr(Node):
    op: Literal["not", "-"]
    x: Expr


@dataclass(frozen=True, slots=True)
class BinaryExpr(Node):
    """``op`` is as written with one space between words: ``not in``, ``is not``."""

    left: Expr
    op: str
    op_span: Span = field(compare=False, repr=False)
    right: Expr


@dataclass(frozen=True, slots=True)
class RangeExpr(Node):
    """``lo .. hi``, or with what is likely between them ``lo .. mid .. hi``."""

    lo: Expr
    hi: Expr
    mid: Expr | None = None


@dataclass(frozen=True, slots=True)
class Paren(Node):
    inner: Expr


Expr: TypeAlias = (
    Number
    | Text
    | Constant
    | Name
    | Attr
    | ListExpr
    | CallExpr
    | IndexExpr
    | UnaryExpr
    | BinaryExpr
    | RangeExpr
    | Paren
)


# ---- settings and statements -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting(Node):
    """``key = value``; ``path`` has several parts where the key is dotted."""

    path: tuple[Name, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Group(Node):
    """``key { … }``."""

    path: tuple[Name, ...]
    block: Block


@dataclass(frozen=True, slots=True)
class Block(Node):
    entries: tuple[Setting | Group, ...]


@dataclass(frozen=True, slots=True)
class ClauseExpr(Node):
    word: Literal["from", "with", "on"]
    value: Expr


@dataclass(frozen=True, slots=True)
class Version(Node):
    """``omr 1``."""

    number: Number


@dataclass(frozen=True, slots=True)
class Use(Node):
    """``use std.models``, ``use "lib/x.omr" as x``; ``module`` is a dotted name or a text."""

    module: Expr
    alias: Name | None


@dataclass(frozen=True, slots=True)
class Let(Node):
    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """``seed = 7``."""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Declaration(Node):
    """``KIND NAME [= base] [clauses] [{ … }]``."""

    kind: Name
    name: Name
    base: Expr | None
    clauses: tuple[ClauseExpr, ...]
    block: Block | None


@dataclass(frozen=True, slots=True)
class Reopen(Node):
    """``NAME [clauses] [{ … }]``: a group of the file (``budget``), or what an amending file changes."""

    path: tuple[Name, ...]
    clauses: tuple[ClauseExpr, ...]
    block: Block | None


@dataclass(frozen=True, slots=True)
class Amend(Node):
    file: Text


@dataclass(frozen=True, slots=True)
class Because(Node):
    text: Text


@dataclass(frozen=True, slots=True)
class Allow(Node):
    """``allow W101 because "…"``."""

    word: Name
    code: Name
    because: Text


Statement: TypeAlias = Version | Use | Let | Assign | Declaration | Reopen | Amend | Because | Allow


@dataclass(frozen=True, slots=True)
class Comment(Node):
    """``# …`` with its sign."""

    text: str


@dataclass(frozen=True, slots=True)
class File:
    """A file's statements that could be read, and its comments, both in order.

    ``broken`` are the names that those which could not be read seem to define: nothing is said about their uses.
    """

    source: SourceFile
    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...]
    broken: frozenset[str] = frozenset()


def parts_of(expr: Expr) -> list[Expr]:
    """The expressions right below one."""
    match expr:
        case ListExpr():
            return [part for item in expr.items for part in (item.value, item.amount) if part]
        case CallExpr():
            return [arg.value for arg in expr.args]
        case IndexExpr():
            return [expr.base, expr.at]
        case UnaryExpr():
            return [expr.x]
        case BinaryExpr():
            return [expr.left, expr.right]
        case RangeExpr():
            return [expr.lo, *([expr.mid] if expr.mid is not None else []), expr.hi]
        case Paren():
            return [expr.inner]
        case Attr():
            return [expr.base]
        case _:
            return []
