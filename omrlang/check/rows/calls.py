"""A call in a row expression to its tree: functions with typed arguments, judges with their model, stages by name."""

from __future__ import annotations

from typing import cast

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.rows.reading import Reading, Typed, a_type, fits
from omrlang.check.values import evaluate
from omrlang.diagnostics import did_you_mean
from omrlang.functions import FUNCTIONS, Function
from omrlang.resolve import MAKES_MODEL, Draft
from omrlang.source import Span
from omrlang.types import Call, ExprNode, ExprType, Lit, Model, Scalar, TrainedModel

NEEDS_RESPONSE = "response"
JUDGE_SEES = ("answer", "response")


def call(rows: Reading, expr: s.CallExpr) -> Typed | Failed:
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


def _arguments(rows: Reading, expr: s.CallExpr, function: Function) -> list[Typed] | Failed:
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
        typed = rows.typed(arg.value)
        if isinstance(typed, Failed):
            failed = True
            continue
        want = function.args[min(position, most - 1)]
        if not fits(typed[1], (want,)):
            message = f"`{function.name}` takes {a_type(want)} here, this is {a_type(typed[1])}"
            rows.ctx.error("E301", message, arg.value.span)
            failed = True
        found.append(typed)
    return FAILED if failed else found


def _named(
    rows: Reading, expr: s.CallExpr, function: Function
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
    rows: Reading, arg: s.Arg, function: Function, types: dict[str, ExprType]
) -> ExprNode | Failed:
    assert arg.name is not None, "only named arguments come here"
    name = arg.name.id
    if name not in types:
        hint = did_you_mean(name, types, "it takes")
        message = f"`{function.name}` takes no `{name}`"
        return rows.ctx.error("E308", message, arg.name.span, hint)
    if name == "sees":
        return _sees(rows.ctx, arg)
    typed = rows.typed(arg.value)
    if isinstance(typed, Failed):
        return FAILED
    if not isinstance(typed[0], Lit) or not fits(typed[1], (types[name],)):
        message = f"`{name}` takes {a_type(types[name])} that is the same for every row"
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


def _subject(rows: Reading, expr: s.CallExpr, what: str) -> Draft | Failed:
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


def _judge(rows: Reading, expr: s.CallExpr, function: Function) -> Typed | Failed:
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


def _of_stage(rows: Reading, expr: s.CallExpr, function: Function) -> Typed | Failed:
    draft = _subject(rows, expr, "an earlier filter")
    if isinstance(draft, Failed):
        return FAILED
    if draft.kind != "filter":
        message = f"`{function.name}` takes an earlier filter, not {draft.kind} `{draft.name}`"
        return rows.ctx.error("E309", message, expr.args[0].span)
    return Call(fn=function.name, stage=draft.name), function.result
