"""Laws of row expressions: SQL in DuckDB and the interpreter mean the same, on random trees and rows."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from omr_runtime.verify.interpret import UNKNOWN, ExpressionError, evaluate
from omr_runtime.verify.relations import answer_in_sql
from omr_runtime.work import ROW
from omrlang.expressions import operands, row_expression, to_sql
from omrlang.types import Between, Binary, Call, Col, ExprNode, Index, ListOf, Lit, Rule, Unary

NASTY = [
    "'; DROP TABLE omr_rows; --",
    'a"b',
    "?",
    "$1",
    "{}",
    "%s",
    "\\",
    "\x00",
    "\u00e9",
    "e\u0301",
    "İΣß",
    "🤦🏼‍♂️",
    " \t\n\u3000",
    "",
    "4",
    "-4.50",
    "1e3",
    "NaN",
    "inf",
    "true",
    "NULL",
    "B",
    "a",
    "aa",
    "aaa",
]

texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=8).filter(lambda s: not any("\ud800" <= c <= "\udfff" for c in s)),
)
numbers = st.one_of(
    st.integers(-100, 100),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 0.5, 1e16, 1e-7, 2**53, 1e308]),
)
EXTRA_NAMES = ["a", "odd name", "a/b~c", 'q"uote', "0"]

text_columns = st.sampled_from(
    ["question", "answer", "source", "response", *(f"extra.{name}" for name in EXTRA_NAMES)]
).map(lambda name: Col(name=name))
number_columns = st.sampled_from(["num_tokens", "sample_index", "pass_rate"]).map(
    lambda name: Col(name=name)
)
list_columns = st.sampled_from(["options", "images"]).map(lambda name: Col(name=name))


def call(fn: str, *args: ExprNode) -> Call:
    return Call(fn=fn, args=args)


NULL = Lit(value=None)
COMPARE = ["==", "!=", "<", "<=", ">", ">="]
PATTERNS = ["^a", "b$", r"\d+", ".", "(?i)É", "", "[[:alpha:]]"]
LEAVES: dict[str, list[st.SearchStrategy[Any]]] = {
    "text": [text_columns, texts.map(lambda s: Lit(value=s))],
    "number": [number_columns, numbers.map(lambda n: Lit(value=n))],
    "list": [list_columns],
    "bool": [st.booleans().map(lambda b: Lit(value=b))],
    "word": [texts.map(lambda s: Lit(value=s))],
    "place": [st.integers(0, 3).map(lambda n: Lit(value=n))],
    "null": [st.just(NULL)],
}
CALLS: dict[str, list[tuple[str, list[str]]]] = {
    "text": [
        ("strip", ["text"]),
        ("strip", ["text", "text"]),
        ("lower", ["text"]),
        ("replace", ["text", "text", "text"]),
        ("remove", ["text", "text", "text"]),
        ("before", ["text", "word"]),
        ("after", ["text", "word"]),
        ("text", ["text"]),
        ("text", ["number"]),
        ("text", ["bool"]),
        ("choose", ["bool", "text", "text"]),
        ("index", ["list", "place"]),
        ("index", ["text", "place"]),
        ("option", ["list", "text"]),
        ("+", ["text", "text"]),
    ],
    "number": [
        *((op, ["number", "number"]) for op in "+-*/"),
        ("*", ["number", "bool"]),
        ("neg", ["number"]),
        ("len", ["text"]),
        ("len", ["list"]),
        ("number", ["text"]),
        ("number", ["number"]),
        ("letter_index", ["text"]),
        ("choose", ["bool", "number", "number"]),
    ],
    "bool": [
        *((op, ["text", "text"]) for op in COMPARE),
        *((op, ["number", "number"]) for op in COMPARE),
        ("==", ["text", "null"]),
        ("is", ["text", "null"]),
        ("is", ["number", "null"]),
        ("is", ["list", "null"]),
        ("in", ["text", "text"]),
        ("in", ["text", "list"]),
        ("among", ["text", "text", "null", "text"]),
        ("among", ["number", "number", "number"]),
        ("among", ["text"]),
        ("between", ["number", "number", "number"]),
        ("matches", ["text"]),
        ("and", ["bool", "bool"]),
        ("or", ["bool", "bool"]),
        ("not", ["bool"]),
        ("choose", ["bool", "bool", "bool"]),
    ],
}


@st.composite
def trees(draw: st.DrawFn, kind: str, depth: int) -> ExprNode:
    """A random tree of that kind whose types fit."""
    makers = CALLS.get(kind, [])
    if depth == 0 or not makers or draw(st.integers(0, 5)) == 0:
        leaf: ExprNode = draw(st.one_of(LEAVES[kind]))
        return leaf
    op, kinds = draw(st.sampled_from(makers))
    return build(draw, op, [draw(trees(k, depth - 1)) for k in kinds])


def build(draw: st.DrawFn, op: Any, args: list[ExprNode]) -> ExprNode:
    match op:
        case "not" | "neg":
            return Unary(op=op, x=args[0])
        case "between":
            return Between(x=args[0], lo=args[1], hi=args[2])
        case "among":
            return Binary(op="in", left=args[0], right=ListOf(items=tuple(args[1:])))
        case "index":
            return Index(x=args[0], at=args[1])
        case "option":
            return Index(x=args[0], at=call("letter_index", args[1]))
        case "matches":
            return Binary(
                op="matches", left=args[0], right=Lit(value=draw(st.sampled_from(PATTERNS)))
            )
        case _ if op in (*COMPARE, *"+-*/", "is", "in", "and", "or"):
            return Binary(op=op, left=args[0], right=args[1])
        case _:
            return call(op, *args)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


extras = st.dictionaries(
    st.sampled_from(EXTRA_NAMES),
    st.one_of(
        texts,
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False, width=32),
        st.lists(st.one_of(texts, st.floats(-10, 10)), max_size=2),
    ),
    max_size=4,
).map(lambda d: json.dumps(d, ensure_ascii=False))

rows = st.fixed_dictionaries(
    {
        "id": st.just("r"),
        "question": maybe(texts),
        "answer": maybe(texts),
        "source": maybe(texts),
        "response": maybe(texts),
        "num_tokens": maybe(st.integers(-5, 5000)),
        "sample_index": maybe(st.integers(0, 5)),
        "pass_rate": maybe(st.floats(0, 1)),
        "options": maybe(st.lists(maybe(texts), max_size=4)),
        "images": maybe(st.lists(texts, max_size=2)),
        "extra": maybe(extras),
    }
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


def in_duckdb(connection: duckdb.DuckDBPyConnection, tree: ExprNode, row: dict[str, Any]) -> Any:
    sql = to_sql(tree)
    if sql is None:  # a word that is empty has no one place to split at
        assume(False)
    assert sql is not None
    full = {name: row.get(name) for name in ROW.names}
    connection.register("omr_rows", pa.Table.from_pylist([full], ROW))
    return connection.execute(f"SELECT {sql.text} FROM omr_rows", list(sql.params)).fetchall()[0][0]


def same(sql: Any, value: Any) -> bool:
    if isinstance(sql, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return math.isclose(sql, value, rel_tol=0, abs_tol=0) or sql == value
    return type(sql) is type(value) and sql == value


LAW = settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@LAW
@given(trees("bool", 4), rows)
def test_conditions_mean_the_same_in_sql_and_in_python(
    connection: duckdb.DuckDBPyConnection, tree: ExprNode, row: dict[str, Any]
) -> None:
    assert same(in_duckdb(connection, tree, row), evaluate(tree, row))


@LAW
@given(st.one_of(trees("text", 4), trees("number", 4)), rows)
def test_values_mean_the_same_in_sql_and_in_python(
    connection: duckdb.DuckDBPyConnection, tree: ExprNode, row: dict[str, Any]
) -> None:
    assert same(in_duckdb(connection, tree, row), evaluate(tree, row))


@LAW
@given(trees("bool", 3))
def test_no_literal_stands_in_the_sql(tree: ExprNode) -> None:
    sql = to_sql(tree)
    assume(sql is not None)
    assert sql is not None
    assert "DROP" not in sql.text
    assert sql.text.count("?") == len(sql.params)


# ---- single facts ----------------------------------------------------------------------------------------------


def col(name: str) -> Col:
    return Col(name=name)


def lit(value: Any) -> Lit:
    return Lit(value=value)


def test_a_comparison_with_a_missing_value_is_false_and_not_of_it_is_true() -> None:
    equal = Binary(op="==", left=col("answer"), right=lit("4"))
    unequal = Binary(op="!=", left=col("answer"), right=lit("4"))
    assert evaluate(equal, {"answer": None}) is False
    assert evaluate(unequal, {"answer": None}) is False
    assert evaluate(Unary(op="not", x=equal), {"answer": None}) is True


@pytest.mark.parametrize(
    ("op", "left", "right", "value"),
    [
        ("and", UNKNOWN, False, False),
        ("and", False, UNKNOWN, False),
        ("and", UNKNOWN, True, UNKNOWN),
        ("or", UNKNOWN, True, True),
        ("or", True, UNKNOWN, True),
        ("or", UNKNOWN, False, UNKNOWN),
        ("or", UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)
def test_unknown_is_neither_true_nor_false(op: Any, left: Any, right: Any, value: Any) -> None:
    tree = Binary(op=op, left=call("format_ok"), right=call("answer_matches"))
    answers = {"format_ok": left, "answer_matches": right}
    assert evaluate(tree, {}, lambda asked: answers[asked.fn]) is value
    negated = evaluate(Unary(op="not", x=tree), {}, lambda asked: answers[asked.fn])
    assert negated is (UNKNOWN if value is UNKNOWN else not value)


VERIFIERS = ("format_ok", "answer_matches", "answer_exact")


@st.composite
def verified(draw: st.DrawFn, depth: int = 4) -> ExprNode:
    """A condition over verifiers, some of which may be unknown."""
    kind = draw(st.sampled_from(["ask", "ask", "not", "and", "or", "more"])) if depth else "ask"
    match kind:
        case "ask":
            return call(draw(st.sampled_from(VERIFIERS)))
        case "not":
            return Unary(op="not", x=draw(verified(depth - 1)))
        case "more":
            one = Binary(op="*", left=lit(draw(st.sampled_from([0.5, 1]))), right=draw(verified(0)))
            return Binary(op=draw(st.sampled_from([">=", "<"])), left=one, right=lit(0.6))
        case _:
            return Binary(op=kind, left=draw(verified(depth - 1)), right=draw(verified(depth - 1)))


@LAW
@given(verified(), st.tuples(*(st.sampled_from([True, False, UNKNOWN]) for _ in VERIFIERS)))
def test_what_is_decided_stays_so_whatever_the_unknown_turn_out_to_be(
    tree: ExprNode, answers: tuple[Any, ...]
) -> None:
    known = dict(zip(VERIFIERS, answers, strict=True))
    value = evaluate(tree, {}, lambda node: known[node.fn])
    for truth in itertools.product([True, False], repeat=len(VERIFIERS)):
        full = {
            n: t if known[n] is UNKNOWN else known[n] for n, t in zip(VERIFIERS, truth, strict=True)
        }
        assert value is UNKNOWN or evaluate(tree, {}, lambda node: full[node.fn]) is value  # noqa: B023


def test_the_right_side_is_not_asked_when_the_left_decides() -> None:
    asked: list[str] = []

    def ask(node: Call) -> bool:
        asked.append(node.fn)
        return node.fn == "answer_matches"

    assert (
        evaluate(Binary(op="or", left=call("answer_matches"), right=call("judge")), {}, ask) is True
    )
    assert evaluate(Binary(op="and", left=call("format_ok"), right=call("judge")), {}, ask) is False
    assert asked == ["answer_matches", "format_ok"]


def test_verifiers_count_as_one_and_zero_in_arithmetic() -> None:
    tree = Binary(
        op="+",
        left=Binary(op="*", left=lit(0.9), right=call("answer_matches")),
        right=Binary(op="*", left=lit(0.1), right=call("format_score")),
    )
    assert evaluate(tree, {}, lambda node: node.fn == "answer_matches") == pytest.approx(0.9)
    assert evaluate(tree, {}, lambda node: UNKNOWN) is UNKNOWN


@pytest.mark.parametrize(
    "tree",
    [
        Binary(op="==", left=col("answer"), right=lit(4)),
        Binary(op="+", left=col("answer"), right=lit(4)),
        Binary(op="and", left=col("answer"), right=lit(True)),
        call("len", lit(4)),
        Binary(op="in", left=lit("a"), right=lit(4)),
    ],
)
def test_kinds_that_do_not_go_together_are_an_error_and_have_no_sql(tree: ExprNode) -> None:
    assert to_sql(tree) is None
    with pytest.raises(ExpressionError):
        evaluate(tree, {"answer": "x"})


def test_raw_columns_of_any_kind() -> None:
    row = {
        "Answer": 4.0,
        "n": 12345678901234567890,
        "choices": ["x", "y"],
        "meta": {"k": 1},
        "on": True,
    }
    assert evaluate(call("text", col("Answer")), row) == "4"
    assert evaluate(call("text", col("n")), row) == "12345678901234567890"
    assert evaluate(Index(x=col("choices"), at=lit(1)), row) == "y"
    assert evaluate(Index(x=col("meta"), at=lit("k")), row) == 1
    assert evaluate(call("text", col("meta")), row) == '{"k":1}'
    assert evaluate(Binary(op="and", left=col("on"), right=lit(True)), row) is True


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['a', \"it's\", 3]", ["a", "it's", 3]),
        ('["a", null, 2.5]', ["a", None, 2.5]),
        ("('$6', '$7')", ["$6", "$7"]),
        ("['\\d']", ["\\d"]),
        ("[]", []),
    ],
)
def test_list_reads_a_list_that_is_kept_as_text(text: str, items: list[Any]) -> None:
    assert evaluate(call("list", col("options")), {"options": text}) == items


def test_list_of_a_list_or_of_nothing_is_that() -> None:
    assert evaluate(call("list", col("options")), {"options": ["a"]}) == ["a"]
    assert evaluate(call("list", col("options")), {}) is None


NO_LISTS = {
    "nothing": "",
    "words": "a, b",
    "record": "{'a': 1}",
    "lists": "['a', ['b']]",
    "code": "[__import__('os').system('true')]",
    "nan": "[NaN]",
    "deep": "[" * 90_000,
    "digits": "[" + "9" * 5_000 + "]",
    "long": "['" + "a" * 100_000 + "']",
}


@pytest.mark.parametrize("text", NO_LISTS.values(), ids=NO_LISTS)
def test_a_text_that_is_no_list_is_said_and_not_run(text: str) -> None:
    with pytest.raises(ExpressionError, match="`list` takes the text of a list"):
        evaluate(call("list", col("options")), {"options": text})
    assert to_sql(call("list", col("question"))) is None


@given(st.lists(st.one_of(texts, st.integers(), st.booleans(), st.none()), max_size=6))
def test_list_reads_back_what_python_and_json_print(items: list[Any]) -> None:
    for text in (repr(items), json.dumps(items), json.dumps(items, ensure_ascii=False)):
        assert evaluate(call("list", col("options")), {"options": text}) == items


def test_shuffled_depends_on_the_seed_and_the_row_only() -> None:
    def order(seed: int, row: str) -> Any:
        tree = Call(fn="shuffled", args=(col("options"),), named=(("seed", lit(seed)),))
        return evaluate(tree, {"id": row, "options": list("abcdefgh")})

    assert order(1, "r") == order(1, "r")
    assert sorted(order(1, "r")) == list("abcdefgh")
    assert len({tuple(order(seed, row)) for seed in (1, 2) for row in ("r", "s")}) == 4


def test_rules_with_sql_run_first_each_group_in_source_order() -> None:
    long = Binary(op="<=", left=call("len", col("answer")), right=lit(50))
    short = Binary(op=">", left=call("len", col("answer")), right=lit(0))
    both = Binary(op="and", left=Binary(op="and", left=call("format_ok"), right=long), right=short)
    made = row_expression(both, "…", "bool", ["format_ok", "len(answer) <= 50", "len(answer) > 0"])
    assert [rule.name for rule in made.rules] == [
        "len(answer) <= 50",
        "len(answer) > 0",
        "format_ok",
    ]
    assert operands(both) == (call("format_ok"), long, short)
    raw = row_expression(both, "…", "bool", ["a", "b", "c"], columns="raw")
    assert all(rule.sql is None for rule in raw.rules)


def test_a_wrong_pattern_is_an_error_that_shows_it() -> None:
    tree = Binary(op="matches", left=col("answer"), right=lit("("))
    with pytest.raises(ExpressionError, match=r"pattern '\('"):
        evaluate(tree, {"answer": "x"})


def test_rules_in_sql_over_a_batch() -> None:
    tree = Binary(op="==", left=col("extra.level"), right=lit("5"))
    rule = Rule(name="level", tree=tree, sql=to_sql(tree))
    answers: list[dict[int, bool]] = [{}, {}, {}]
    given_rows: list[dict[str, Any]] = [
        {"extra": '{"level": 5}'},
        {"extra": '{"level": "5"}'},
        {"extra": None},
    ]
    answer_in_sql([Rule(name="x", tree=call("format_ok")), rule], given_rows, answers)
    assert answers == [{1: True}, {1: True}, {1: False}]


def test_nesting_costs_no_more_than_its_length(connection: duckdb.DuckDBPyConnection) -> None:
    tree: ExprNode = col("num_tokens")
    for _ in range(60):
        tree = Binary(op="+", left=lit(1), right=tree)
    assert (
        in_duckdb(connection, tree, {"num_tokens": 2}) == 62.0 == evaluate(tree, {"num_tokens": 2})
    )
