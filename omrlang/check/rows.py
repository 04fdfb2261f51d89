"""Row expressions: names to columns, verifiers and values; types; then how they run (``expressions.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias, cast

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.values import Quantity, evaluate, quantity
from omrlang.diagnostics import did_you_mean
from omrlang.expressions import row_expression
from omrlang.format import format_expression
from omrlang.functions import COLUMNS, FUNCTIONS, Function
from omrlang.resolve import MAKES_MODEL, Bound, Draft, Scope, look_up, report_unknown
from omrlang.source import Span
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
    Model,
    RowExpr,
    Scalar,
    TrainedModel,
    Unary,
)

Typed: TypeAlias = tuple[ExprNode, ExprType]
NEEDS_RESPONSE = "response"
JUDGE_SEES = ("answer", "response")


@dataclass(frozen=True, slots=True)
class _Rows:
    """What one row expression is read with."""

    ctx: Context
    bound: Bound

    def at(self, expr: s.Expr) -> _Rows:
        return _Rows(self.ctx, self.bound.of(expr))


def row_value(
    ctx: Context, bound: Bound, want: tuple[ExprType, ...], label: str
) -> RowExpr | Failed:
    """A setting's expression over the row, of one of the types ``want``."""
    typed = _node(_Rows(ctx, bound), bound.expr)
    if isinstance(typed, Failed):
        return FAILED
    tree, type_ = typed
    if not _fits(type_, want):
        message = f"`{label}` takes {_listed(want)}, this is {_a(type_)}"
        return ctx.error("E301", message, bound.expr.span)
    text = format_expression(_bare(bound.expr))
    texts = [format_expression(operand) for operand in _operands(bound.expr)]
    columns: Literal["schema", "raw"] = "raw" if ctx.columns.raw else "schema"
    return row_expression(tree, text, type_, texts, columns)


def _operands(expr: s.Expr) -> list[s.Expr]:
    """The top-level operands of ``and``, without the brackets around them."""
    expr = _bare(expr)
    if isinstance(expr, s.BinaryExpr) and expr.op == "and":
        return _operands(expr.left) + _operands(expr.right)
    return [expr]


def _bare(expr: s.Expr) -> s.Expr:
    while isinstance(expr, s.Paren):
        expr = expr.inner
    return expr


def _fits(have: ExprType, want: tuple[ExprType, ...]) -> bool:
    """A truth counts as 1 or 0 where a number is wanted."""
    return "any" in (have, *want) or have in want or (have == "bool" and "number" in want)


_WORDS: dict[ExprType, str] = {
    "bool": "a condition",
    "number": "a number",
    "text": "a text",
    "list": "a list",
    "any": "any value",
}


def _a(type_: ExprType) -> str:
    return _WORDS[type_]


def _listed(types: tuple[ExprType, ...]) -> str:
    return " or ".join(_WORDS[type_] for type_ in types)


def _node(rows: _Rows, expr: s.Expr) -> Typed | Failed:
    ctx = rows.ctx
    match expr:
        case s.Paren():
            return _node(rows, expr.inner)
        case s.Number():
            return _number(ctx, expr)
        case s.Text():
            return Lit(value=expr.value), "text"
        case s.Constant():
            return Lit(value=expr.value), "any" if expr.value is None else "bool"
        case s.Name() | s.Attr():
            return _name(rows, expr)
        case s.ListExpr():
            return _list(rows, expr)
        case s.CallExpr():
            return _call(rows, expr)
        case s.IndexExpr():
            return _index(rows, expr)
        case s.UnaryExpr():
            return _unary(rows, expr)
        case s.BinaryExpr():
            return _binary(rows, expr)
        case s.RangeExpr():
            return ctx.error("E301", "a range stands to the right of `in` only", expr.span)


def _number(ctx: Context, expr: s.Number) -> Typed | Failed:
    value = quantity(expr, ctx.reporter)
    if isinstance(value, Failed):
        return FAILED
    if value.unit not in (None, "fraction"):
        return ctx.error(
            "E304", f"a row expression has no units, this has `{value.unit}`", expr.span
        )
    return Lit(value=_plain(value.value)), "number"


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


# ---- names -------------------------------------------------------------------------------------


def _name(rows: _Rows, expr: s.Name | s.Attr) -> Typed | Failed:
    ctx, word = rows.ctx, expr.span.text
    if isinstance(expr, s.Name) and expr.id == "null":
        return Lit(value=None), "any"
    if isinstance(expr, s.Attr) and isinstance(expr.base, s.Name) and expr.base.id == "extra":
        return _column(ctx, f"extra.{expr.name.id}", expr.span)
    if isinstance(expr, s.Name):
        if _has_column(ctx, expr.id):
            return _column(ctx, expr.id, expr.span)
        if expr.id in FUNCTIONS and look_up(rows.bound.scope, expr) is None:
            return _call(rows, s.CallExpr(expr.span, expr, ()))
    if isinstance(look_up(rows.bound.scope, expr), Bound):
        return _let(rows, expr)
    return _unknown(rows, expr, word)


def _let(rows: _Rows, expr: s.Name | s.Attr) -> Typed | Failed:
    """A ``let`` counts as the value that it stands for."""
    value = evaluate(rows.ctx, rows.bound.of(expr))
    match value:
        case Failed():
            return FAILED
        case bool():
            return Lit(value=value), "bool"
        case str():
            return Lit(value=value), "text"
        case Quantity(unit=None) | Quantity(unit="fraction"):
            return Lit(value=_plain(value.value)), "number"
        case _:
            message = f"`{expr.span.text}` is no value that a row can be compared with"
            return rows.ctx.error("E301", message, expr.span)


def _has_column(ctx: Context, name: str) -> bool:
    names = ctx.columns.names
    return ctx.columns.raw if names is None and ctx.columns.raw else name in (names or COLUMNS)


def _column(ctx: Context, name: str, span: Span) -> Typed | Failed:
    columns = ctx.columns
    if columns.raw and columns.names is None:
        return Col(name=name), "any"
    known = columns.names if columns.names is not None else dict(COLUMNS)
    if name in known:
        return Col(name=name), known[name]
    if columns.names is None and name.startswith("extra."):
        return Col(name=name), "any"
    hint = did_you_mean(name, known, f"{columns.what} has")
    return ctx.error("E209", f"{columns.what} has no column `{name}`", span, hint)


def _unknown(rows: _Rows, expr: s.Name | s.Attr, word: str) -> Failed:
    ctx = rows.ctx
    found = look_up(rows.bound.scope, expr)
    if isinstance(found, Draft):
        message = f"`{word}` is a {found.kind}; a row expression has no use for it here"
        return ctx.error("E309", message, expr.span)
    if isinstance(found, Scope):
        return ctx.error("E309", f"`{word}` is a module", expr.span)
    if isinstance(expr, s.Attr):
        report_unknown(rows.bound.scope, expr, ctx.reporter)
        return FAILED
    if word in rows.bound.scope.broken:
        return FAILED
    known = ctx.columns.names if ctx.columns.names is not None else COLUMNS
    if word in COLUMNS and not ctx.columns.raw:
        return _no_column_here(ctx, word, expr.span)
    bare = [name for name, function in FUNCTIONS.items() if not function.args]
    hint = did_you_mean(word, [*known, *bare, *rows.bound.scope.lets])
    if ctx.columns.raw:
        hint = hint or did_you_mean(word, known, f"{ctx.columns.what} has")
        return ctx.error("E209", f"{ctx.columns.what} has no column `{word}`", expr.span, hint)
    return ctx.error("E201", f"unknown name `{word}`", expr.span, hint)


def _no_column_here(ctx: Context, word: str, span: Span) -> Failed:
    message = f"{ctx.columns.what} has no column `{word}`"
    hint = f"the row has {', '.join(ctx.columns.names)}" if ctx.columns.names else None
    return ctx.error("E209", message, span, hint)


# ---- calls -------------------------------------------------------------------------------------


def _call(rows: _Rows, expr: s.CallExpr) -> Typed | Failed:
    ctx = rows.ctx
    if not isinstance(expr.fn, s.Name):
        return ctx.error("E208", f"`{expr.fn.span.text}` is no function", expr.fn.span)
    function = FUNCTIONS.get(expr.fn.id)
    if function is None:
        hint = did_you_mean(expr.fn.id, FUNCTIONS, "functions are")
        return ctx.error("E208", f"unknown function `{expr.fn.id}`", expr.fn.span, hint)
    if not _response_there(ctx, function, expr.span):
        return FAILED
    if function.asks == "model":
        return _judge(rows, expr, function)
    if function.asks == "stage":
        return _of_stage(rows, expr, function)
    args = _arguments(rows, expr, function)
    named = _named(rows, expr, function)
    if isinstance(args, Failed) or isinstance(named, Failed):
        return FAILED
    result = _result(function, args)
    return Call(fn=function.name, args=tuple(arg[0] for arg in args), named=named), result


def _result(function: Function, args: list[Typed]) -> ExprType:
    """``choose`` gives what its branches are."""
    if function.name == "choose" and args[1][1] == args[2][1]:
        return args[1][1]
    return function.result


def _response_there(ctx: Context, function: Function, span: Span) -> bool:
    """A verifier looks at a response; a row that has none cannot be asked."""
    if function.asks not in ("response", "worker", "model"):
        return True
    names = ctx.columns.names
    if ctx.columns.raw or (names is not None and NEEDS_RESPONSE not in names):
        message = f"`{function.name}` looks at a response, {ctx.columns.what} has none"
        ctx.error("E209", message, span, "a `sample` stage gives responses")
        return False
    return True


def _arguments(rows: _Rows, expr: s.CallExpr, function: Function) -> list[Typed] | Failed:
    positional = [arg for arg in expr.args if arg.name is None]
    least, most = len(function.args) - function.optional, len(function.args)
    if len(positional) < least or (len(positional) > most and not function.variadic):
        many = str(least) if least == most else f"{least} to {most}"
        many = f"at least {least}" if function.variadic else many
        noun = "argument" if many in ("1", "at least 1") else "arguments"
        message = f"`{function.name}` takes {many} {noun}, not {len(positional)}"
        return rows.ctx.error("E308", message, expr.span, function.doc)
    found: list[Typed] = []
    failed = False
    for position, arg in enumerate(positional):
        typed = _node(rows, arg.value)
        if isinstance(typed, Failed):
            failed = True
            continue
        want = function.args[min(position, most - 1)]
        if not _fits(typed[1], (want,)):
            message = f"`{function.name}` takes {_a(want)} here, this is {_a(typed[1])}"
            rows.ctx.error("E301", message, arg.value.span)
            failed = True
        found.append(typed)
    return FAILED if failed else found


def _named(
    rows: _Rows, expr: s.CallExpr, function: Function
) -> tuple[tuple[str, ExprNode], ...] | Failed:
    types = dict(function.named)
    found: dict[str, ExprNode] = {}
    failed = False
    for arg in expr.args:
        if arg.name is None:
            continue
        node = _named_value(rows, arg, function, types)
        if isinstance(node, Failed):
            failed = True
        elif arg.name.id in found:
            rows.ctx.error("E206", f"`{arg.name.id}` is given twice", arg.name.span)
        else:
            found[arg.name.id] = node
    return FAILED if failed else tuple(found.items())


def _named_value(
    rows: _Rows, arg: s.Arg, function: Function, types: dict[str, ExprType]
) -> ExprNode | Failed:
    assert arg.name is not None, "only named arguments come here"
    name = arg.name.id
    if name not in types:
        hint = did_you_mean(name, types, "it takes")
        message = f"`{function.name}` takes no `{name}`"
        return rows.ctx.error("E308", message, arg.name.span, hint)
    if name == "sees":
        return _sees(rows.ctx, arg)
    typed = _node(rows, arg.value)
    if isinstance(typed, Failed):
        return FAILED
    if not isinstance(typed[0], Lit) or not _fits(typed[1], (types[name],)):
        message = f"`{name}` takes {_a(types[name])} that is the same for every row"
        return rows.ctx.error("E301", message, arg.value.span)
    return typed[0]


def _sees(ctx: Context, arg: s.Arg) -> ExprNode | Failed:
    """``sees = answer``: a choice that is written as a name."""
    value = arg.value
    word = value.id if isinstance(value, s.Name) else getattr(value, "value", None)
    if word not in JUDGE_SEES:
        hint = f"choices are {', '.join(JUDGE_SEES)}"
        return ctx.error("E211", f"`sees` has no choice `{value.span.text}`", value.span, hint)
    return Lit(value=cast(Scalar, word))


def _subject(rows: _Rows, expr: s.CallExpr, what: str) -> Draft | Failed:
    """The first argument of a judge or of ``pass_rate``: a name and nothing else."""
    positional = [arg for arg in expr.args if arg.name is None]
    if len(positional) != 1:
        message = f"`{expr.fn.span.text}` takes {what}, and names for the rest"
        return rows.ctx.error("E308", message, expr.span)
    value = evaluate(rows.ctx, rows.bound.of(positional[0].value))
    if isinstance(value, Failed):
        return FAILED
    if not isinstance(value, Draft):
        message = f"`{expr.fn.span.text}` takes {what}"
        return rows.ctx.error("E309", message, positional[0].value.span)
    return value


def _judge(rows: _Rows, expr: s.CallExpr, function: Function) -> Typed | Failed:
    draft = _subject(rows, expr, "a model")
    named = _named(rows, expr, function)
    if isinstance(draft, Failed) or isinstance(named, Failed):
        return FAILED
    if draft.kind in MAKES_MODEL:
        model: Model | TrainedModel = TrainedModel(stage=draft.name)
    elif draft.kind == "model":
        made = rows.ctx.thing(draft)
        if not isinstance(made, Model):
            return FAILED
        model = made
    else:
        message = f"`{expr.fn.span.text}` takes a model, not {draft.kind} `{draft.name}`"
        return rows.ctx.error("E309", message, expr.args[0].span)
    return Call(fn=function.name, named=named, model=model), function.result


def _of_stage(rows: _Rows, expr: s.CallExpr, function: Function) -> Typed | Failed:
    draft = _subject(rows, expr, "an earlier filter")
    if isinstance(draft, Failed):
        return FAILED
    if draft.kind != "filter":
        message = f"`{function.name}` takes an earlier filter, not {draft.kind} `{draft.name}`"
        return rows.ctx.error("E309", message, expr.args[0].span)
    return Call(fn=function.name, stage=draft.name), function.result


# ---- operators ---------------------------------------------------------------------------------


def _list(rows: _Rows, expr: s.ListExpr) -> Typed | Failed:
    items: list[ExprNode] = []
    failed = False
    for item in expr.items:
        if item.amount is not None:
            rows.ctx.error("E101", "unexpected `:` in a list of values", item.amount.span)
        typed = _node(rows, item.value)
        if isinstance(typed, Failed):
            failed = True
        else:
            items.append(typed[0])
    return FAILED if failed else (ListOf(items=tuple(items)), "list")


def _index(rows: _Rows, expr: s.IndexExpr) -> Typed | Failed:
    if isinstance(expr.base, s.Name) and expr.base.id == "raw" and isinstance(expr.at, s.Text):
        if rows.ctx.columns.raw:
            return _column(rows.ctx, expr.at.value, expr.at.span)
        return rows.ctx.error("E209", "`raw` works in the columns of a source only", expr.base.span)
    base, at = _node(rows, expr.base), _node(rows, expr.at)
    if isinstance(base, Failed) or isinstance(at, Failed):
        return FAILED
    if not _fits(base[1], ("list", "text")) or base[1] == "bool":
        message = f"only a list can be indexed, this is {_a(base[1])}"
        return rows.ctx.error("E301", message, expr.base.span)
    if not _fits(at[1], ("number",)) or at[1] == "bool":
        return rows.ctx.error("E301", f"an index is a number, this is {_a(at[1])}", expr.at.span)
    return Index(x=base[0], at=at[0]), "text" if rows.ctx.columns.raw is False else "any"


def _unary(rows: _Rows, expr: s.UnaryExpr) -> Typed | Failed:
    typed = _node(rows, expr.x)
    if isinstance(typed, Failed):
        return FAILED
    want: ExprType = "bool" if expr.op == "not" else "number"
    if not _fits(typed[1], (want,)):
        return rows.ctx.error(
            "E301", f"`{expr.op}` takes {_a(want)}, this is {_a(typed[1])}", expr.x.span
        )
    if expr.op == "-" and isinstance(typed[0], Lit) and isinstance(typed[0].value, int | float):
        return Lit(value=-typed[0].value), "number"
    return Unary(op="not" if expr.op == "not" else "neg", x=typed[0]), want


def _binary(rows: _Rows, expr: s.BinaryExpr) -> Typed | Failed:
    op = expr.op
    if op in ("in", "not in") and isinstance(_bare(expr.right), s.RangeExpr):
        return _between(rows, expr, cast(s.RangeExpr, _bare(expr.right)))
    left, right = _node(rows, expr.left), _node(rows, expr.right)
    if isinstance(left, Failed) or isinstance(right, Failed):
        return FAILED
    if not _operands_fit(rows.ctx, expr, left, right):
        return FAILED
    if op in ("not in", "is not"):
        inner = Binary(op="in" if op == "not in" else "is", left=left[0], right=right[0])
        return Unary(op="not", x=inner), "bool"
    node = Binary(op=cast(Literal["+"], op), left=left[0], right=right[0])
    return node, _binary_type(op, left[1], right[1])


def _binary_type(op: str, left: ExprType, right: ExprType) -> ExprType:
    if op in ("-", "*", "/"):
        return "number"
    if op != "+":
        return "bool"
    if "text" in (left, right):
        return "text"
    return "any" if "any" in (left, right) else "number"


def _between(rows: _Rows, expr: s.BinaryExpr, span: s.RangeExpr) -> Typed | Failed:
    parts = [_node(rows, part) for part in (expr.left, span.lo, span.hi)]
    typed = [part for part in parts if not isinstance(part, Failed)]
    if len(typed) < 3:
        return FAILED
    for part, at in zip(typed, (expr.left, span.lo, span.hi), strict=True):
        if not _fits(part[1], ("number",)):
            return rows.ctx.error("E301", f"a range is of numbers, this is {_a(part[1])}", at.span)
    node = Between(x=typed[0][0], lo=typed[1][0], hi=typed[2][0])
    return (Unary(op="not", x=node) if expr.op == "not in" else node), "bool"


_TAKES: dict[str, tuple[ExprType, ...]] = {
    "and": ("bool",),
    "or": ("bool",),
    "-": ("number",),
    "*": ("number",),
    "/": ("number",),
    "+": ("number", "text"),
    "<": ("number", "text"),
    "<=": ("number", "text"),
    ">": ("number", "text"),
    ">=": ("number", "text"),
    "matches": ("text",),
}


def _operands_fit(ctx: Context, expr: s.BinaryExpr, left: Typed, right: Typed) -> bool:
    """Whether both sides are what the operator takes; reports the side that is not."""
    op = expr.op
    if op in _TAKES:
        for typed, side in ((left, expr.left), (right, expr.right)):
            if not _fits(typed[1], _TAKES[op]):
                message = f"`{op}` takes {_listed(_TAKES[op])}, this is {_a(typed[1])}"
                ctx.error("E301", message, side.span)
                return False
    if op in ("in", "not in") and not _fits(right[1], ("list", "text")):
        message = f"`in` takes a list, a text or a range on its right, this is {_a(right[1])}"
        ctx.error("E301", message, expr.right.span)
        return False
    if op in ("is", "is not") and right[0] != Lit(value=None):
        ctx.error(
            "E301", f"`{op}` compares with `null` only", expr.right.span, "`==` compares values"
        )
        return False
    if op in ("==", "!=", "<", "<=", ">", ">=", "+") and not _same(left[1], right[1]):
        message = f"`{op}` stands between {_a(left[1])} and {_a(right[1])}"
        ctx.error(
            "E301", message, expr.op_span, "`text(…)` and `number(…)` turn one into the other"
        )
        return False
    return True


def _same(left: ExprType, right: ExprType) -> bool:
    numbers = {"bool", "number"}
    return left == right or "any" in (left, right) or {left, right} <= numbers
