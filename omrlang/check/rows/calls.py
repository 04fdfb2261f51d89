"""A call in a row expression to its tree: functions with typed arguments, judges with their model, stages by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.rows.reading import Reading, Typed, a_type, fits
from omrlang.check.values import describe, evaluate
from omrlang.diagnostics import did_you_mean
from omrlang.functions import FUNCTIONS, Asks, Function
from omrlang.scope import MAKES_MODEL, MAKES_ROWS, Draft, look_up
from omrlang.source import Span
from omrlang.types import (
    Call,
    ExprNode,
    ExprType,
    Lit,
    Model,
    Scalar,
    Scripted,
    TrainedModel,
    Verifier,
    construct,
)

NEEDS_RESPONSE = "response"
JUDGE_SEES = ("answer", "response")
VERIFYING = ("keep", "reward", "score", "by", "until")
"""The settings in which verifiers, judges and other stages can be asked."""


def call(rows: Reading, expr: s.CallExpr) -> Typed | Failed:
    ctx = rows.ctx
    declared = look_up(rows.bound.scope, expr.fn)
    if isinstance(declared, Draft) and declared.kind == "verifier":
        if expr.args:
            message = f"`{expr.fn.span.text}` looks at the whole row, it takes no arguments"
            return ctx.error("E308", message, expr.args[0].span)
        return verifier(rows, declared, expr.span)
    if not isinstance(expr.fn, s.Name):
        return _no_function(ctx, expr)
    function = FUNCTIONS.get(expr.fn.id)
    if function is None:
        hint = did_you_mean(expr.fn.id, FUNCTIONS, "functions are")
        return ctx.error("E208", f"unknown function `{expr.fn.id}`", expr.fn.span, hint)
    if not _asked_here(rows, function.name, function.asks, expr.span):
        return FAILED
    if not _response_there(ctx, function, expr.span):
        return FAILED
    return _READERS.get(function.asks, _plain_call)(rows, expr, function)


def _no_function(ctx: Context, expr: s.CallExpr) -> Failed:
    """``question.lower()``: a column has no functions of its own."""
    hint = None
    if isinstance(expr.fn, s.Attr) and expr.fn.name.id in FUNCTIONS:
        args = ", ".join([expr.fn.base.span.text, *(arg.span.text for arg in expr.args)])
        hint = f"`{expr.fn.name.id}({args})`"
    return ctx.error("E208", f"`{expr.fn.span.text}` is no function", expr.fn.span, hint)


def verifier(rows: Reading, draft: Draft, span: Span) -> Typed | Failed:
    """A declared verifier, which looks at the whole row."""
    made = rows.ctx.thing(draft)
    if not isinstance(made, Verifier) or not _asked_here(rows, draft.name, "code", span):
        return FAILED
    return construct(Call, fn=draft.name, verifier=made), made.gives


def _asked_here(rows: Reading, name: str, asks: Asks, span: Span) -> bool:
    """What needs more than the row itself is asked where rows are verified, and nowhere before."""
    if rows.label in VERIFYING or asks in ("sql", "row"):
        return True
    if asks == "tokens" and rows.label != "user":
        return True
    message = f"`{name}` cannot be asked in `{rows.label}`"
    hint = "a filter's `keep`, an `until`, a `reward`, a `score` and an `order` can ask it"
    rows.ctx.error("E309", message, span, hint)
    return False


def _plain_call(rows: Reading, expr: s.CallExpr, function: Function) -> Typed | Failed:
    args = _arguments(rows, expr, function)
    named = _named(rows, expr, function)
    if isinstance(args, Failed) or isinstance(named, Failed):
        return FAILED
    result = _result(function, args)
    return construct(
        Call, fn=function.name, args=tuple(arg[0] for arg in args), named=named
    ), result


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
    if name == "n":
        return _n(rows, arg)
    if name == "image":
        return _alike(rows, arg)
    typed = rows.typed(arg.value)
    if isinstance(typed, Failed):
        return FAILED
    if not isinstance(typed[0], Lit) or not fits(typed[1], (types[name],)):
        message = f"`{name}` takes {a_type(types[name])} that is the same for every row"
        return rows.ctx.error("E301", message, arg.value.span)
    return typed[0]


def _n(rows: Reading, arg: s.Arg) -> ExprNode | Failed:
    """How many words in a row: a whole number from 1 on."""
    typed = rows.typed(arg.value)
    value = typed[0].value if isinstance(typed, tuple) and isinstance(typed[0], Lit) else None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return construct(Lit, value=value)
    if isinstance(typed, Failed):
        return FAILED
    return rows.ctx.error("E305", "`n` is a whole number from 1 on", arg.value.span)


def _alike(rows: Reading, arg: s.Arg) -> ExprNode | Failed:
    """From which likeness on two images count as one: over 0, at most 1."""
    typed = rows.typed(arg.value)
    value = typed[0].value if isinstance(typed, tuple) and isinstance(typed[0], Lit) else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return construct(Lit, value=value)
    if isinstance(typed, Failed):
        return FAILED
    return rows.ctx.error("E305", "`image` is a number over 0, at most 1", arg.value.span)


def _sees(ctx: Context, arg: s.Arg) -> ExprNode | Failed:
    """``sees = answer``: a choice that is written as a name."""
    value = arg.value
    word = value.id if isinstance(value, s.Name) else getattr(value, "value", None)
    if word not in JUDGE_SEES:
        hint = f"choices are {', '.join(JUDGE_SEES)}"
        return ctx.error("E211", f"`sees` has no choice `{value.span.text}`", value.span, hint)
    return construct(Lit, value=cast(Scalar, word))


# ---- what stands for a model or for stages -----------------------------------------------------


def _judge(rows: Reading, expr: s.CallExpr, function: Function) -> Typed | Failed:
    subject = _subject(rows, expr, function, "a model")
    model = FAILED if isinstance(subject, Failed) else _model(rows, subject)
    named = _named(rows, expr, function)
    if isinstance(model, Failed) or isinstance(named, Failed) or isinstance(subject, Failed):
        return FAILED
    if isinstance(model, Model) and isinstance(model.source, Scripted):
        message = f"a model judges, `{model.name}` is a program"
        return rows.ctx.error("E309", message, subject.value.span)
    return construct(Call, fn=function.name, named=named, model=model), function.result


def _tokens(rows: Reading, expr: s.CallExpr, function: Function) -> Typed | Failed:
    """``tokens(response, teacher)``."""
    if len(expr.args) != 2 or any(arg.name for arg in expr.args):
        message = "`tokens` takes a text and a model"
        return rows.ctx.error("E308", message, expr.span, function.doc)
    text, subject = expr.args
    args = _arguments(rows, replace(expr, args=(text,)), function)
    model = _model(rows, subject)
    if isinstance(args, Failed) or isinstance(model, Failed):
        return FAILED
    return construct(Call, fn=function.name, args=(args[0][0],), model=model), function.result


def _of_filter(rows: Reading, expr: s.CallExpr, function: Function) -> Typed | Failed:
    """``pass_rate(probe_ok)``."""
    subject = _subject(rows, expr, function, "an earlier filter")
    name = FAILED if isinstance(subject, Failed) else _stage(rows, subject, ("filter",))
    if isinstance(name, Failed):
        return FAILED
    return construct(Call, fn=function.name, stages=(name,)), function.result


def _in_rows(rows: Reading, expr: s.CallExpr, function: Function) -> Typed | Failed:
    """``seen_in(mathvista, mathverse)``."""
    positional = [arg for arg in expr.args if arg.name is None]
    if not positional:
        message = f"`{function.name}` takes the row sets to look in"
        return rows.ctx.error("E308", message, expr.span, function.doc)
    names = [_stage(rows, arg, MAKES_ROWS) for arg in positional]
    named = _named(rows, expr, function)
    found = tuple(name for name in names if not isinstance(name, Failed))
    if len(found) < len(names) or isinstance(named, Failed):
        return FAILED
    return construct(Call, fn=function.name, named=named, stages=found), function.result


_READERS: dict[Asks, Callable[[Reading, s.CallExpr, Function], Typed | Failed]] = {
    "model": _judge,
    "tokens": _tokens,
    "stage": _of_filter,
    "rows": _in_rows,
}


def _subject(rows: Reading, expr: s.CallExpr, function: Function, what: str) -> s.Arg | Failed:
    """The one argument of a judge or of ``pass_rate`` that has no name."""
    positional = [arg for arg in expr.args if arg.name is None]
    if len(positional) == 1:
        return positional[0]
    message = f"`{function.name}` takes {what}"
    return rows.ctx.error("E308", message, expr.span, function.doc)


def _named_thing(rows: Reading, arg: s.Arg, what: str) -> Draft | Failed:
    value = evaluate(rows.ctx, rows.bound.of(arg.value))
    if isinstance(value, Draft | Failed):
        return value
    message = f"{what} is wanted here, not {describe(value)}"
    return rows.ctx.error("E309", message, arg.value.span)


def _model(rows: Reading, arg: s.Arg) -> Model | TrainedModel | Failed:
    draft = _named_thing(rows, arg, "a model")
    if isinstance(draft, Failed):
        return FAILED
    if draft.kind in MAKES_MODEL:
        return construct(TrainedModel, stage=draft.name)
    if draft.kind == "model":
        made = rows.ctx.thing(draft)
        return made if isinstance(made, Model) else FAILED
    message = f"a model is wanted here, not the {draft.kind} `{draft.name}`"
    return rows.ctx.error("E309", message, arg.value.span)


def _stage(rows: Reading, arg: s.Arg, kinds: tuple[str, ...]) -> str | Failed:
    what = "an earlier filter" if kinds == ("filter",) else "a stage that gives rows"
    draft = _named_thing(rows, arg, what)
    if isinstance(draft, Failed):
        return FAILED
    if draft.kind in kinds:
        return draft.name
    message = f"{what} is wanted here, not the {draft.kind} `{draft.name}`"
    return rows.ctx.error("E309", message, arg.value.span)
