"""A row expression and a row to a value, with the meaning that ``omrlang.expressions`` gives it in SQL.

Truth has three values: what could not be asked is ``UNKNOWN`` and spreads (Kleene), except where the other side of
``and`` or ``or`` decides. A missing value is None: a comparison with it is false, arithmetic with it is missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never

from omr_runtime.errors import RunError
from omr_runtime.verify.text_lists import read_list
from omrlang.expressions import NUMBER_PATTERN, WHITE_SPACE
from omrlang.functions import FUNCTIONS, IN_THE_ROW
from omrlang.types import Between, Binary, Call, Col, ExprNode, Index, ListOf, Lit, ModelRef, Unary


class _Unknown:
    """What could not be asked."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN: Final = _Unknown()
Value: TypeAlias = Any
Row: TypeAlias = Mapping[str, Any]
Ask: TypeAlias = Callable[[Call], Value]
"""Answers a verifier or judge for the row at hand: true, false, a number or ``UNKNOWN``; it may raise."""
Count: TypeAlias = Callable[[str, ModelRef], int]
"""Tokens of a text under a model's tokenizer."""


class ExpressionError(RunError):
    """Values of kinds that do not go together, met in a row."""


@dataclass(frozen=True, slots=True)
class _Scope:
    row: Row
    ask: Ask
    count: Count


def _refuse(call: Call) -> Value:
    raise ExpressionError(
        f"`{call.fn}` cannot be asked here: it needs a response and its verifiers"
    )


def no_tokens(text: str, model: ModelRef) -> int:
    """Where no tokenizer is at hand."""
    raise ExpressionError("`tokens` cannot be asked here: it needs a model's tokenizer")


def evaluate(tree: ExprNode, row: Row, ask: Ask = _refuse, count: Count = no_tokens) -> Value:
    """The value of the expression: None where it is missing, ``UNKNOWN`` where it depends on what could not be asked.

    >>> evaluate(Binary(op="==", left=Col(name="answer"), right=Lit(value="4")), {"answer": None})
    False
    """
    return _eval(tree, _Scope(row, ask, count))


def _eval(node: ExprNode, scope: _Scope) -> Value:
    match node:
        case Lit():
            return node.value
        case Col():
            return _column(node.name, scope.row)
        case ListOf():
            items = [_eval(item, scope) for item in node.items]
            return UNKNOWN if UNKNOWN in items else items
        case Unary():
            return _unary(node, scope)
        case Binary(op="and" | "or"):
            return _logic(node, scope)
        case Binary():
            return _strict(
                lambda left, right: _binary(node.op, left, right),
                _eval(node.left, scope),
                _eval(node.right, scope),
            )
        case Between():
            return _strict(_between, *(_eval(x, scope) for x in (node.x, node.lo, node.hi)))
        case Index():
            return _strict(_index, _eval(node.x, scope), _eval(node.at, scope))
        case Call():
            return _call(node, scope)
        case _:
            assert_never(node)


def _strict(function: Callable[..., Value], *args: Value) -> Value:
    """The function of its arguments; unknown if one of them is."""
    return UNKNOWN if any(arg is UNKNOWN for arg in args) else function(*args)


# ---- columns ---------------------------------------------------------------------------------------------------


def _column(name: str, row: Row) -> Value:
    if name in row:
        value = row[name]
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if name.startswith("extra."):
        return _extra(name.removeprefix("extra."), row.get("extra"))
    return None


def _extra(name: str, extra: str | None) -> str | None:
    if extra is None:
        return None
    found = json.loads(extra).get(name)
    return found if found is None or isinstance(found, str) else _json_text(found)


def _json_text(value: Value) -> str:
    """JSON as DuckDB prints it: no blanks, floats with all digits up to 1e21."""
    match value:
        case float():
            return _json_float(value)
        case list():
            return "[" + ",".join(_json_text(item) for item in value) + "]"
        case dict():
            inner = (
                f"{json.dumps(k, ensure_ascii=False)}:{_json_text(v)}" for k, v in value.items()
            )
            return "{" + ",".join(inner) + "}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _json_float(value: float) -> str:
    size = abs(value)
    if 1e16 <= size < 1e21:
        return f"{int(value)}.0"
    if 1e-6 <= size < 1e-4:
        return _decimal(value)
    return re.sub(r"e([+-])0?(\d)", lambda m: "e" + m[1].replace("+", "") + m[2], repr(value))


def _decimal(value: float) -> str:
    """Shortest digits without an exponent, for small numbers."""
    digits, _, exponent = repr(value).partition("e")
    places = len(digits.replace(".", "").lstrip("-")) - 1 - int(exponent)
    return f"{value:.{places}f}"


# ---- logic -----------------------------------------------------------------------------------------------------


def _truth(value: Value) -> Value:
    """A truth value. A missing one counts as false, as a comparison with it would."""
    if value is UNKNOWN or isinstance(value, bool):
        return value
    if value is None:
        return False
    raise ExpressionError(f"a condition is needed, not {_kind(value)} {_shown(value)}")


def _logic(node: Binary, scope: _Scope) -> Value:
    """Kleene and short-circuiting: the right side is asked only when the left does not decide."""
    decides = node.op == "or"
    left = _truth(_eval(node.left, scope))
    if left is decides:
        return decides
    right = _truth(_eval(node.right, scope))
    if right is decides:
        return decides
    return UNKNOWN if UNKNOWN in (left, right) else not decides


def _unary(node: Unary, scope: _Scope) -> Value:
    x = _eval(node.x, scope)
    match node.op:
        case "not":
            truth = _truth(x)
            return truth if truth is UNKNOWN else not truth
        case "neg":
            return _strict(lambda value: _finite(lambda n: -n, value), x)
        case _:
            assert_never(node.op)


# ---- operators -------------------------------------------------------------------------------------------------


def _kind(value: Value) -> str:
    match value:
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case _:
            return "a record" if isinstance(value, dict) else type(value).__name__


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number(value: Value) -> float:
    if isinstance(value, bool | int | float):
        return float(value)
    raise ExpressionError(f"a number is needed, not {_kind(value)} {_shown(value)}")


def _finite(function: Callable[..., float], *args: Value) -> float | None:
    """Arithmetic on doubles; None if an argument is missing or the result is no finite number."""
    if any(arg is None for arg in args):
        return None
    try:
        result = function(*(_number(arg) for arg in args))
    except (OverflowError, ZeroDivisionError):
        return None
    return result if math.isfinite(result) else None


def _text_arg(value: Value) -> str:
    if isinstance(value, str):
        return value
    raise ExpressionError(f"a text is needed, not {_kind(value)} {_shown(value)}")


def _binary(op: str, left: Value, right: Value) -> Value:
    match op:
        case "is":
            return left is None
        case "+" if isinstance(left, str) or isinstance(right, str):
            return _concatenated(left, right)
        case "+":
            return _finite(lambda a, b: a + b, left, right)
        case "-":
            return _finite(lambda a, b: a - b, left, right)
        case "*":
            return _finite(lambda a, b: a * b, left, right)
        case "/":
            return _finite(lambda a, b: a / b, left, right)
        case "in":
            return _contains(right, left)
        case "matches":
            return (
                left is not None
                and right is not None
                and _matches(_text_arg(left), _text_arg(right))
            )
        case _:
            return _compare(op, left, right)


def _concatenated(left: Value, right: Value) -> str | None:
    if left is None or right is None:
        return None
    return _text_arg(left) + _text_arg(right)


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _compare(op: str, left: Value, right: Value) -> bool:
    if left is None or right is None:
        return False
    if not _comparable(left, right):
        raise ExpressionError(
            f"`{op}` cannot compare {_kind(left)} {_shown(left)} with {_kind(right)} {_shown(right)}"
        )
    try:
        return bool(_ORDER[op](left, right))
    except TypeError as error:  # records, or lists of items that have no order
        raise ExpressionError(f"`{op}` cannot order {_shown(left)} and {_shown(right)}") from error


def _comparable(left: Value, right: Value) -> bool:
    for kinds in ((bool, int, float), (str,), (list, tuple), (dict,)):
        if isinstance(left, kinds):
            return isinstance(right, kinds)
    return False


def _contains(where: Value, item: Value) -> bool:
    if where is None or item is None:
        return False
    if isinstance(where, str):
        return _text_arg(item) in where
    if isinstance(where, list | tuple):
        return any(x is not None and _comparable(x, item) and x == item for x in where)
    raise ExpressionError(f"`in` needs a list or a text on its right, not {_kind(where)}")


def _between(x: Value, lo: Value, hi: Value) -> bool:
    low, number, high = (_finite(lambda n: n, value) for value in (lo, x, hi))
    return low is not None and number is not None and high is not None and low <= number <= high


def _index(x: Value, at: Value) -> Value:
    """Zero-based; out of range is missing."""
    if x is None or at is None:
        return None
    if isinstance(x, dict):
        return x.get(at) if isinstance(at, str) else None
    place = _finite(lambda n: n, at)
    if not isinstance(x, str | list | tuple):
        raise ExpressionError(f"{_kind(x)} {_shown(x)} has no items to take by place")
    if place is None or place != int(place) or not 0 <= place < len(x):
        return None
    return x[int(place)]


def _matches(text: str, pattern: str) -> bool:
    """DuckDB's own regular expressions, so that there is one meaning."""
    from omr_runtime.verify.relations import BadPattern, matches

    try:
        return matches(text, pattern)
    except BadPattern as error:
        raise ExpressionError(
            f"`matches`: the pattern {_shown(pattern)} is wrong: {error}"
        ) from error


# ---- functions -------------------------------------------------------------------------------------------------


def _call(node: Call, scope: _Scope) -> Value:
    function = FUNCTIONS.get(node.fn)
    if node.verifier is not None or function is None or function.asks not in IN_THE_ROW:
        return scope.ask(node)
    args = [_eval(arg, scope) for arg in node.args]
    if node.model is not None:
        model = node.model
        return _strict(_texts(lambda text: scope.count(text, model)), *args)
    if node.fn == "shuffled":
        seed = dict(node.named).get("seed", Lit(value=0))
        return _strict(lambda items, s: _shuffled(items, s, scope.row), *args, _eval(seed, scope))
    return _strict(_FUNCTIONS[node.fn], *args)


def _texts(function: Callable[..., Value]) -> Callable[..., Value]:
    """A function of texts: missing if one of them is missing."""

    def checked(*args: Value) -> Value:
        if any(arg is None for arg in args):
            return None
        return function(*(_text_arg(arg) for arg in args))

    return checked


def _len(x: Value) -> float | None:
    if x is None:
        return None
    if isinstance(x, str | list | tuple | dict):
        return len(x)
    raise ExpressionError(f"`len` takes a text or a list, not {_kind(x)} {_shown(x)}")


def _lower(x: str) -> str:
    """Character by character, as DuckDB: no character becomes two, and a final sigma is a sigma."""
    return "".join(character.lower()[0] for character in x)


def _replace(x: str, old: str, new: str) -> str:
    return x.replace(old, new) if old else x


def _remove(x: str, *parts: str) -> str:
    for part in parts:
        x = _replace(x, part, "")
    return x


def _before(x: str, separator: str) -> str:
    return x.split(separator)[0] if separator else x


def _after(x: str, separator: str) -> str:
    return x.split(separator)[-1] if separator else x


def as_text(x: Value) -> str | None:
    """What ``text(x)`` gives: a whole number without a decimal point, a list or record as JSON."""
    match x:
        case None | str():
            return x
        case bool():
            return "true" if x else "false"
        case int():
            return str(x)
        case float():
            return repr(x + 0.0).removesuffix(".0") if math.isfinite(x) else None
        case _:
            return _json_text(list(x) if isinstance(x, tuple) else x)


_NUMBER = re.compile(rf"[ \t\r\n]*({NUMBER_PATTERN})[ \t\r\n]*", re.ASCII)


def _as_number(x: Value) -> float | None:
    if x is None or isinstance(x, int | float):
        return None if x is None else _finite(lambda n: n, x)
    found = _NUMBER.fullmatch(_text_arg(x))
    value = float(found[1]) if found else math.inf
    return value if math.isfinite(value) else None


def _as_list(x: Value) -> list[Value] | None:
    if x is None or isinstance(x, list | tuple):
        return None if x is None else list(x)
    found = read_list(_text_arg(x))
    if found is None:
        raise ExpressionError(f"`list` takes the text of a list, not {_shown(x)}")
    return found


def _choose(condition: Value, first: Value, second: Value) -> Value:
    return first if _truth(condition) else second


def _letter_index(x: str) -> int | None:
    return ord(x.lower()) - ord("a") if re.fullmatch("[A-Za-z]", x) else None


def _shuffled(items: Value, seed: Value, row: Row) -> Value:
    """An order made from the seed and the row (its id, or the items themselves where it has none yet)."""
    if items is None:
        return None
    name = row.get("id") or _json_text(list(items))

    def order(place: int) -> str:
        return hashlib.sha256(
            f"{as_text(seed)}\x00shuffled\x00{name}\x00{place}".encode()
        ).hexdigest()

    return [items[place] for place in sorted(range(len(items)), key=order)]


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "len": _len,
    "strip": _texts(lambda x, chars=WHITE_SPACE: x.strip(chars)),
    "lower": _texts(_lower),
    "replace": _texts(_replace),
    "remove": _texts(_remove),
    "before": _texts(_before),
    "after": _texts(_after),
    "text": as_text,
    "number": _as_number,
    "choose": _choose,
    "list": _as_list,
    "letter_index": _texts(_letter_index),
}
