"""Row expressions: the nodes of their trees, what they call, how they run, and the prompt that maps a row with one."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.models import ModelRef
from omrlang.types.setting import Frozen, Scalar, Setting


class Lit(Frozen):
    op: Literal["lit"] = "lit"
    value: Scalar


class Col(Frozen):
    """A column of the row: a schema column (``answer``), ``extra.NAME``, or in a ``source`` a raw column."""

    op: Literal["col"] = "col"
    name: str


class Python(Frozen):
    """``python("my_pkg.rewards:score")``: a function in a file below the recipe's folder."""

    kind: Literal["python"] = "python"
    entry: Annotated[
        str, Setting("`PACKAGE.MODULE:FUNCTION`, from the folder of the recipe", cls="weights")
    ]


class Verifier(Frozen):
    """A verifier that somebody wrote in Python. ``folder`` is where imports start, from the recipe's own folder;
    ``files`` below it are the code that will run, the entry's own first, and ``code`` is their hash.

    The function gets the row as a plain dict of its columns and returns a truth value, or with ``gives = number`` a
    number. It runs in a process of its own that is ended when it takes too long; whatever it fails at is unknown.
    """

    kind: Literal["verifier"] = "verifier"
    name: str
    source: Python
    version: Annotated[
        int, Setting("raised by its author when its meaning changes", cls="rows", ge=1)
    ]
    gives: Annotated[
        Literal["bool", "number"], Setting("what the function returns", cls="rows")
    ] = "bool"
    folder: str = "."
    files: tuple[str, ...] = ()
    code: str = ""


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
    """A function (``len``), a verifier (``answer_matches``), or a declared one (``verifier`` is then what is asked).

    ``model`` is the judge, or whose tokens are counted; ``stages`` are those whose rows or verdicts are looked at.
    """

    op: Literal["call"] = "call"
    fn: str
    args: tuple[ExprNode, ...] = ()
    named: tuple[tuple[str, ExprNode], ...] = ()
    model: ModelRef | None = None
    stages: tuple[str, ...] = ()
    verifier: Verifier | None = None


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


class Enough(Frozen):
    """``4 of (EXPR)``: so many rows that satisfy a condition."""

    count: Annotated[int, Setting("how many are enough", cls="rows", ge=1)]
    of: Annotated[RowExpr, Setting("what they satisfy", cls="rows")]

    @property
    def text(self) -> str:
        return f"{self.count} of ({self.of.text})"


class Ascending(Frozen):
    """``ascending(EXPR)``: rows by a number, the lowest first; a missing one comes last."""

    kind: Literal["ascending"] = "ascending"
    by: Annotated[RowExpr, Setting("a number of the row", cls="weights")]


class Descending(Frozen):
    """``descending(EXPR)``: rows by a number, the highest first; a missing one comes last."""

    kind: Literal["descending"] = "descending"
    by: Annotated[RowExpr, Setting("a number of the row", cls="weights")]


Order: TypeAlias = Annotated[Ascending | Descending, Field(discriminator="kind")]


class Prompt(Frozen):
    """A system prompt and the reasoning format that belongs to it.

    A response in this format is ``<thinking>…</thinking><answer>…</answer>`` with the tag names given.
    ``thinking = None`` is a format with an answer only. ``user`` maps the row to the user's turn (default: ``question``
    followed by its options, one a line with letters). ``repair`` lets extraction accept a missing opening tag.
    """

    name: str
    system: Annotated[str | None, Setting("the system prompt", cls="rows")] = None
    thinking: Annotated[
        str | None,
        Setting("tag around the reasoning; none is a format with an answer only", cls="rows"),
    ] = "think"
    answer: Annotated[str, Setting("tag around the answer", cls="rows")] = "answer"
    user: Annotated[
        RowExpr | None,
        Setting("the user's turn; default the question with its options", cls="rows"),
    ] = None
    repair: Annotated[bool, Setting("a missing opening tag is forgiven", cls="rows")] = False


class RowSets(Frozen):
    """Stages that give rows, by name, where a setting names them: ``from = [benchmarks.aime24, held_out]``."""

    names: tuple[str, ...]
