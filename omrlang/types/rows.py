"""Row expressions: the nodes of their trees, how they run, and the prompt that maps a row with one."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.models import ModelRef
from omrlang.types.setting import Frozen, Scalar


class Lit(Frozen):
    op: Literal["lit"] = "lit"
    value: Scalar


class Col(Frozen):
    """A column of the row: a schema column (``answer``), ``extra.NAME``, or in a ``source`` a raw column."""

    op: Literal["col"] = "col"
    name: str


class ListOf(Frozen):
    op: Literal["list"] = "list"
    items: tuple[ExprNode, ...]


class Unary(Frozen):
    op: Literal["not", "neg"]
    x: ExprNode


class Binary(Frozen):
    """``is`` compares with null (``x is null``); ``in`` has a list or a text on its right."""

    op: Literal[
        "+", "-", "*", "/", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "is", "matches"
    ]
    left: ExprNode
    right: ExprNode


class Between(Frozen):
    """``x in lo .. hi``, both ends inclusive."""

    op: Literal["between"] = "between"
    x: ExprNode
    lo: ExprNode
    hi: ExprNode


class Index(Frozen):
    """``options[0]``: zero-based; out of range gives null."""

    op: Literal["index"] = "index"
    x: ExprNode
    at: ExprNode


class Call(Frozen):
    """A function (``len``), a verifier (``answer_matches``) or a judge (``model`` is then who is asked)."""

    op: Literal["call"] = "call"
    fn: str
    args: tuple[ExprNode, ...] = ()
    named: tuple[tuple[str, ExprNode], ...] = ()
    model: ModelRef | None = None
    stage: str | None = None


ExprNode: TypeAlias = Annotated[
    Lit | Col | ListOf | Unary | Binary | Between | Index | Call, Field(discriminator="op")
]


class Sql(Frozen):
    """A DuckDB expression over the row's columns; every literal is a ``?`` bound from ``params``, in order."""

    text: str
    params: tuple[Scalar, ...] = ()


class Rule(Frozen):
    """One top-level operand of ``and``. ``name`` is its formatted text: the reason on a row that it drops.

    ``sql`` is set where DuckDB can answer; then the rule runs before those that need verifiers.
    """

    name: str
    tree: ExprNode
    sql: Sql | None = None


ExprType: TypeAlias = Literal["bool", "number", "text", "list", "any"]


class RowExpr(Frozen):
    """A row expression: its text as formatted, its resolved tree, and how it runs.

    ``rules`` are the top-level ``and`` operands in the order in which they run: those with SQL first, in source
    order, then the rest in source order. An expression that is no conjunction has one rule.
    Fingerprints look at ``tree`` only.
    """

    text: str
    type: ExprType
    tree: ExprNode
    rules: tuple[Rule, ...]


class Prompt(Frozen):
    """A system prompt and the reasoning format that belongs to it.

    A response in this format is ``<thinking>…</thinking><answer>…</answer>`` with the tag names given.
    ``thinking = None`` is a format with an answer only. ``user`` maps the row to the user's turn (default: ``question``
    followed by its options, one a line with letters). ``repair`` lets extraction accept a missing opening tag.
    """

    name: str
    system: str | None = None
    thinking: str | None = "think"
    answer: str = "answer"
    user: RowExpr | None = None
    repair: bool = False
