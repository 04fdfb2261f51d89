"""A typed row expression to how it runs: DuckDB SQL where that can answer, and the order of the cascade.

The SQL never holds a value of the recipe: each literal is a bound parameter, names are quoted identifiers. It means
what the runtime's interpreter means: a comparison with a missing value is false, so a condition is never null;
arithmetic that leaves the numbers is null; ``len`` counts code points; regular expressions are RE2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.types import (
    Between,
    Binary,
    Call,
    Col,
    ExprNode,
    ExprType,
    Index,
    ListOf,
    Lit,
    RowExpr,
    Rule,
    Scalar,
    Sql,
    Unary,
    construct,
)

WHITE_SPACE = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680" + (
    "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
"""What ``strip(x)`` takes off, spelled out because DuckDB's own ``trim`` knows the space only."""

NUMBER_PATTERN = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
"""What ``number(x)`` reads, with white space around it."""

SqlType: TypeAlias = Literal["bool", "number", "text", "texts", "numbers", "empty", "null"]

_LIST_OF: dict[SqlType, SqlType] = {"text": "texts", "number": "numbers"}
_ITEM: dict[SqlType, SqlType] = {"texts": "text", "numbers": "number"}
_COMPARE = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
# Not by nullif: DuckDB writes its argument out twice, so that nested ones grow without bound.
_FINITE = "list_extract(list_filter([{}], lambda omr_x: isfinite(omr_x)), 1)"
_NOT_EMPTY = "list_extract(list_filter([{}], lambda omr_x: omr_x <> ''), 1)"
_LETTERS = ".abcdefghijklmnopqrstuvwxyz"
_PLACES = ", ".join(["NULL", *(str(place) for place in range(26))])


def row_expression(
    tree: ExprNode,
    text: str,
    type: ExprType,
    operand_texts: Sequence[str],
    columns: Literal["schema", "raw"] = "schema",
) -> RowExpr:
    """The expression with its rules in running order. ``operand_texts`` are those of ``operands(tree)``, in order.

    ``columns = "raw"`` is an expression over a source's own columns: their types are not known, so no rule has SQL.
    """
    trees = operands(tree) if type == "bool" else (tree,)
    texts = tuple(operand_texts) if len(trees) > 1 else (text,)
    assert len(texts) == len(trees), (
        f"{len(trees)} operands of `and` but {len(texts)} texts: {text}"
    )
    rules = [
        construct(Rule, name=name, tree=node, sql=to_sql(node) if columns == "schema" else None)
        for name, node in zip(texts, trees, strict=True)
    ]
    rules.sort(key=lambda rule: rule.sql is None)
    return construct(RowExpr, text=text, type=type, tree=tree, rules=tuple(rules))


def operands(tree: ExprNode) -> tuple[ExprNode, ...]:
    """The top-level operands of ``and``, in source order: ``(a and b) and c`` has three, as ``a and b and c``.

    >>> [node.name for node in operands(Binary(op="and", left=Col(name="a"), right=Col(name="b")))]
    ['a', 'b']
    """
    if isinstance(tree, Binary) and tree.op == "and":
        return (*operands(tree.left), *operands(tree.right))
    return (tree,)


def to_sql(tree: ExprNode) -> Sql | None:
    """The expression over the row schema's columns, or None where DuckDB cannot answer or types are not known.

    >>> to_sql(Binary(op="<=", left=Call(fn="len", args=(Col(name="answer"),)), right=Lit(value=50))).text
    'coalesce(CAST(length("answer") AS DOUBLE) <= CAST(? AS DOUBLE), FALSE)'
    """
    try:
        piece = _emit(tree)
    except _NotSql:
        return None
    return construct(Sql, text=piece.text, params=piece.params)


class _NotSql(Exception):
    """DuckDB cannot answer this expression, or not with the interpreter's meaning."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """SQL text whose ``?`` are ``params`` in order."""

    type: SqlType
    text: str
    params: tuple[Scalar, ...] = ()


def _join(type: SqlType, template: str, *parts: _Piece) -> _Piece:
    """The template with each ``{}`` filled by a part, in order, so that the parameters keep their order."""
    params = tuple(value for part in parts for value in part.params)
    return _Piece(type, template.format(*(part.text for part in parts)), params)


def _emit(node: ExprNode) -> _Piece:
    match node:
        case Lit():
            return _literal(node.value)
        case Col():
            return _column(node.name)
        case ListOf():
            return _list(node)
        case Unary():
            return _unary(node)
        case Binary():
            return _binary(node)
        case Between():
            parts = [_numeric(_emit(x)) for x in (node.x, node.lo, node.hi)]
            return _join("bool", "coalesce({} BETWEEN {} AND {}, FALSE)", *parts)
        case Index():
            return _index(node)
        case Call():
            return _call(node)
        case _:
            assert_never(node)


def _literal(value: Scalar) -> _Piece:
    match value:
        case None:
            return _Piece("null", "NULL")
        case bool():
            return _Piece("bool", "CAST(? AS BOOLEAN)", (value,))
        case int() | float():
            return _Piece("number", "CAST(? AS DOUBLE)", (float(value),))
        case str():
            return _Piece("text", "CAST(? AS VARCHAR)", (value,))
        case _:
            assert_never(value)


def quoted(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _column(name: str) -> _Piece:
    if name.startswith("extra."):
        pointer = "/" + name.removeprefix("extra.").replace("~", "~0").replace("/", "~1")
        return _Piece("text", 'json_extract_string("extra", CAST(? AS VARCHAR))', (pointer,))
    match COLUMNS.get(name):
        case "text":
            return _Piece("text", quoted(name))
        case "list":
            return _Piece("texts", quoted(name))
        case "number":
            return _Piece("number", _FINITE.format(f"CAST({quoted(name)} AS DOUBLE)"))
        case _:
            raise _NotSql


def _list(node: ListOf) -> _Piece:
    items = [_emit(item) for item in node.items]
    types = {item.type for item in items} - {"null"}
    if not types:
        return _Piece("empty", "CAST([] AS VARCHAR[])")
    kind = _LIST_OF.get(next(iter(types)))
    if len(types) > 1 or kind is None:
        raise _NotSql
    return _join(kind, "[" + ", ".join("{}" for _ in items) + "]", *items)


def _unary(node: Unary) -> _Piece:
    x = _emit(node.x)
    match node.op:
        case "not":
            return _join("bool", "(NOT {})", _of(x, "bool"))
        case "neg":
            return _join("number", "(- {})", _numeric(x))
        case _:
            assert_never(node.op)


def _binary(node: Binary) -> _Piece:
    left, right = _emit(node.left), _emit(node.right)
    match node.op:
        case "and" | "or":
            template = f"({{}} {node.op.upper()} {{}})"
            return _join("bool", template, _of(left, "bool"), _of(right, "bool"))
        case "+" if left.type == "text" and right.type == "text":
            return _join("text", "({} || {})", left, right)
        case "+" | "-" | "*":
            template = _FINITE.format(f"({{}} {node.op} {{}})")
            return _join("number", template, _numeric(left), _numeric(right))
        case "/":
            template = _FINITE.format("({} / {})")
            return _join("number", template, _numeric(left), _numeric(right))
        case "==" | "!=" | "<" | "<=" | ">" | ">=":
            return _comparison(_COMPARE[node.op], left, right)
        case "in":
            return _membership(left, right)
        case "is":
            if right.type != "null":
                raise _NotSql
            return _join("bool", "({} IS NULL)", left)
        case "matches":
            return _matches(left, node.right)
        case _:
            assert_never(node.op)


def _comparison(op: str, left: _Piece, right: _Piece) -> _Piece:
    if "null" in (left.type, right.type):
        return _Piece("bool", "FALSE")
    if left.type == right.type == "text":
        return _join("bool", f"coalesce({{}} {op} {{}}, FALSE)", left, right)
    return _join("bool", f"coalesce({{}} {op} {{}}, FALSE)", _numeric(left), _numeric(right))


def _membership(item: _Piece, where: _Piece) -> _Piece:
    if "null" in (item.type, where.type) or where.type == "empty":
        return _Piece("bool", "FALSE")
    if where.type == "text":
        return _join("bool", "coalesce(contains({}, {}), FALSE)", where, _of(item, "text"))
    if _ITEM.get(where.type) != item.type:
        raise _NotSql
    return _join("bool", "coalesce(list_contains({}, {}), FALSE)", where, item)


def _matches(x: _Piece, pattern: ExprNode) -> _Piece:
    """Only with a literal pattern: a bad one made from a row would stop the whole query."""
    if not isinstance(pattern, Lit):
        raise _NotSql
    return _join(
        "bool",
        "coalesce(regexp_matches({}, {}), FALSE)",
        _of(x, "text"),
        _of(_emit(pattern), "text"),
    )


def _index(node: Index) -> _Piece:
    """Zero-based. DuckDB counts from one and takes negative places from the end, which is out of range here."""
    x = _emit(node.x)
    if isinstance(node.at, Lit):
        place = node.at.value
        if isinstance(place, bool) or not isinstance(place, int | float):
            raise _NotSql
        if place < 0 or place != int(place) or place > 2**31:
            raise _NotSql
    elif not (isinstance(node.at, Call) and node.at.fn == "letter_index"):
        raise _NotSql
    at = _emit(node.at)
    if x.type == "text":
        return _join("text", _NOT_EMPTY.format("substring({}, CAST({} AS BIGINT) + 1, 1)"), x, at)
    if x.type not in _ITEM:
        raise _NotSql
    return _join(_ITEM[x.type], "list_extract({}, CAST({} AS BIGINT) + 1)", x, at)


def _call(node: Call) -> _Piece:
    function = FUNCTIONS.get(node.fn)
    if function is None or function.asks != "sql" or node.named:
        raise _NotSql
    if node.fn in ("before", "after"):
        return _split(node)
    args = [_emit(arg) for arg in node.args]
    match node.fn:
        case "len":
            return _length(args[0])
        case "strip":
            chars = args[1] if len(args) > 1 else _literal(WHITE_SPACE)
            return _join("text", "trim({}, {})", _of(args[0], "text"), _of(chars, "text"))
        case "lower":
            return _join("text", "lower({})", _of(args[0], "text"))
        case "replace":
            return _join("text", "replace({}, {}, {})", *(_of(arg, "text") for arg in args))
        case "remove":
            return _remove(args)
        case "text":
            return _text(args[0])
        case "number":
            return _number(args[0])
        case "choose":
            return _choose(args)
        case "letter_index":
            return _letter_index(args[0])
        case _:
            raise _NotSql


def _length(x: _Piece) -> _Piece:
    if x.type == "text":
        return _join("number", "CAST(length({}) AS DOUBLE)", x)
    if x.type in _ITEM or x.type == "empty":
        return _join("number", "CAST(len({}) AS DOUBLE)", x)
    raise _NotSql


def _split(node: Call) -> _Piece:
    """``before`` and ``after``; only with a literal that is not empty, where splitting has one meaning."""
    x, separator = node.args
    if not (isinstance(separator, Lit) and isinstance(separator.value, str) and separator.value):
        raise _NotSql
    place = 1 if node.fn == "before" else -1
    template = f"list_extract(string_split({{}}, {{}}), {place})"
    return _join("text", template, _of(_emit(x), "text"), _emit(separator))


def _remove(args: Sequence[_Piece]) -> _Piece:
    text = _of(args[0], "text")
    for part in args[1:]:
        text = _join("text", "replace({}, {}, '')", text, _of(part, "text"))
    return text


def _text(x: _Piece) -> _Piece:
    match x.type:
        case "text":
            return x
        case "bool":
            return _join("text", "CAST({} AS VARCHAR)", x)
        case "number":
            # Adding zero turns -0.0 into 0.0; a whole number loses its decimal point.
            template = r"regexp_replace(CAST({} + 0.0::DOUBLE AS VARCHAR), '\.0$', '')"
            return _join("text", template, x)
        case _:
            raise _NotSql


def _number(x: _Piece) -> _Piece:
    if x.type == "number":
        return x
    template = _FINITE.format("TRY_CAST(regexp_extract({}, {}, 1) AS DOUBLE)")
    pattern = rf"^[ \t\r\n]*({NUMBER_PATTERN})[ \t\r\n]*$"
    return _join("number", template, _of(x, "text"), _literal(pattern))


def _choose(args: Sequence[_Piece]) -> _Piece:
    condition, first, second = args
    types = {first.type, second.type} - {"null"}
    if len(types) != 1:
        raise _NotSql
    kind = next(iter(types))
    if kind == "bool" and first.type != second.type:
        raise _NotSql
    return _join(kind, "(CASE WHEN {} THEN {} ELSE {} END)", _of(condition, "bool"), first, second)


def _letter_index(x: _Piece) -> _Piece:
    letter = "lower(regexp_extract({}, '^[A-Za-z]$', 0))"
    template = f"CAST(list_extract([{_PLACES}], strpos('{_LETTERS}', {letter})) AS DOUBLE)"
    return _join("number", template, _of(x, "text"))


def _of(piece: _Piece, type: SqlType) -> _Piece:
    """The piece if it has that type. A bare null is a null of any type but a truth value."""
    if piece.type == type:
        return piece
    if piece.type == "null" and type == "text":
        return _Piece("text", "CAST(NULL AS VARCHAR)")
    raise _NotSql


def _numeric(piece: _Piece) -> _Piece:
    """A number, or a truth value counted as 1 and 0."""
    match piece.type:
        case "number":
            return piece
        case "bool":
            return _join("number", "CAST({} AS DOUBLE)", piece)
        case "null":
            return _Piece("number", "CAST(NULL AS DOUBLE)")
        case _:
            raise _NotSql
