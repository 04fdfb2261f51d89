"""What a row expression may call: functions and verifiers, each declared once.

The checker takes names, argument types and results from here, the SQL compiler ``sql``, the runtime's interpreter
implements each name, and a verifier's ``version`` enters the fingerprint of what asks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from omrlang.types import ExprType

Asks: TypeAlias = Literal[
    "sql", "row", "tokens", "response", "stage", "rows", "worker", "model", "code"
]
"""What an answer needs, cheapest first: DuckDB; the interpreter; a tokenizer; the response and its prompt's format;
another stage's verdicts; the rows of other stages; a killable process; a judge; code that the recipe brings along."""

IN_THE_ROW: tuple[Asks, ...] = ("sql", "row", "tokens")
"""What can be answered wherever a row is read, also before any stage has verified it."""


@dataclass(frozen=True, slots=True)
class Function:
    """``args`` are the types of positional arguments, ``optional`` of them may be left out from the end;
    ``variadic`` allows more of the last type. ``named`` maps keyword arguments to types.

    A model or stages that a function is asked of stand among the arguments of the call and not in ``args``.
    """

    name: str
    args: tuple[ExprType, ...]
    result: ExprType
    asks: Asks
    doc: str
    optional: int = 0
    variadic: bool = False
    named: tuple[tuple[str, ExprType], ...] = ()
    version: int = 1


_ALL = (
    Function("len", ("any",), "number", "sql", "characters of a text, items of a list"),
    Function(
        "strip",
        ("text", "text"),
        "text",
        "sql",
        "without the given characters (default white space) at both ends",
        optional=1,
    ),
    Function("lower", ("text",), "text", "sql", "in lower case"),
    Function(
        "replace",
        ("text", "text", "text"),
        "text",
        "sql",
        "every occurrence of the second replaced by the third",
    ),
    Function(
        "remove",
        ("text", "text"),
        "text",
        "sql",
        "without any occurrence of the others",
        variadic=True,
    ),
    Function(
        "before",
        ("text", "text"),
        "text",
        "sql",
        "what stands before the first occurrence of the second; all of it if there is none",
    ),
    Function(
        "after",
        ("text", "text"),
        "text",
        "sql",
        "what stands after the last occurrence of the second; all of it if there is none",
    ),
    Function("text", ("any",), "text", "sql", "as text; a whole number without a decimal point"),
    Function("number", ("text",), "number", "sql", "as a number; null if it is none"),
    Function(
        "choose",
        ("bool", "any", "any"),
        "any",
        "sql",
        "the second where the first is true, else the third",
    ),
    Function(
        "letter_index",
        ("text",),
        "number",
        "sql",
        "0 for A or a, 1 for B or b, …; null for anything else",
    ),
    Function(
        "list",
        ("text",),
        "list",
        "row",
        "the items of a list that a set keeps as text, in Python's or JSON's form; a row whose text is no list is a bad row",
    ),
    Function(
        "shuffled",
        ("list",),
        "list",
        "row",
        "the items in an order made from the seed and the row",
        named=(("seed", "number"),),
    ),
    Function(
        "tokens",
        ("text",),
        "number",
        "tokens",
        "tokens of a text under a model's tokenizer, special tokens not counted: `tokens(response, teacher)`",
    ),
    Function(
        "format_ok",
        (),
        "bool",
        "response",
        "the response follows its prompt's reasoning format exactly",
    ),
    Function("format_score", (), "number", "response", "1 if format_ok, else 0"),
    Function(
        "answer_exact",
        (),
        "bool",
        "response",
        "the final answer equals the true one after white space, case and units of notation are evened out",
    ),
    Function(
        "answer_choice",
        (),
        "bool",
        "response",
        "the final answer names the right option, by its letter or by its whole text",
    ),
    Function(
        "answer_math",
        (),
        "bool",
        "worker",
        "math-verify finds the final answer equal to the true one",
    ),
    Function(
        "answer_matches",
        (),
        "bool",
        "worker",
        "answer_exact, answer_choice where there are options, or answer_math",
    ),
    Function(
        "judge",
        (),
        "bool",
        "model",
        "a model, shown question, true answer and final answer, says they agree",
        named=(("sees", "text"), ("question", "bool")),
    ),
    Function(
        "pass_rate",
        (),
        "number",
        "stage",
        "the kept share of this question's samples in an earlier filter: `pass_rate(accepted)`",
    ),
    Function(
        "seen_in",
        (),
        "bool",
        "rows",
        "the question shares `n` words in a row (13 unless said) with a question of the named sets, or an image with one of their rows: byte for byte, or with `image` at least that alike by perceptual hash",
        named=(("n", "number"), ("image", "number")),
    ),
)

FUNCTIONS: dict[str, Function] = {function.name: function for function in _ALL}

COLUMNS: dict[str, ExprType] = {
    "id": "text",
    "parent": "text",
    "content": "text",
    "source": "text",
    "question": "text",
    "images": "list",
    "videos": "list",
    "audios": "list",
    "options": "list",
    "answer": "text",
    "variant": "text",
    "response": "text",
    "thinking": "text",
    "final_answer": "text",
    "sample_index": "number",
    "num_tokens": "number",
    "finish": "text",
    "pass_rate": "number",
}
"""The row schema's columns with their types in an expression; ``extra.NAME`` is text besides."""
