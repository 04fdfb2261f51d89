"""Expressions to the values that the schema's types ask for: one function for all types, driven by annotations."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omrlang import syntax as s
from omrlang.check.annotations import (
    THINGS,
    branches_of,
    is_choice,
    kind_word,
    or_from_env,
    plain_type,
    setting_of,
    takes_several,
)
from omrlang.check.clusters import checked_cluster, machines
from omrlang.check.context import FAILED, Context, Failed, Place
from omrlang.check.enough import enough_value
from omrlang.check.expect import expect_value
from omrlang.check.named import row_sets, rows_of, thing_of, without_amount
from omrlang.check.numbers import amount_of, in_place, number_of, range_of, wrong_type
from omrlang.check.rows import row_value
from omrlang.check.unpublished import is_unpublished, note, stand_in
from omrlang.check.values import Choice, Quantity, describe, evaluate
from omrlang.diagnostics import Edit, Fix, did_you_mean, listed
from omrlang.patterns import at_home
from omrlang.scope import MAKES_MODEL, Bound, Draft, look_up
from omrlang.source import Span
from omrlang.types import (
    All,
    Amount,
    Count,
    Enough,
    Expect,
    ExprType,
    Hardware,
    MixPart,
    Model,
    Range,
    RowExpr,
    RowSets,
    Setting,
    Share,
    Times,
    TrainedModel,
    UpTo,
    construct,
)
from omrlang.types.models import Ray

_ROW_TYPES: dict[str, tuple[ExprType, ...]] = {
    "keep": ("bool",),
    "where": ("bool",),
    "reward": ("number",),
    "score": ("number",),
    "by": ("number",),
    "user": ("text",),
    "columns": ("text", "list"),
}


def conform(ctx: Context, bound: Bound, want: Any, place: Place) -> Any:
    """The value of ``bound`` as the type ``want``, or FAILED after a report.

    ``want`` is a type as a pydantic field has it. Choices are calls: the name picks the union's branch.
    """
    want, setting = plain_type(want)
    place = Place(place.label, setting or place.setting)
    branches = [branch for branch in branches_of(want) if branch is not type(None)]
    bound = ctx.follow(bound)
    if len(branches) < len(branches_of(want)) and _is_none(bound.expr):
        return None
    if is_unpublished(bound) and not {RowExpr, Expect} & {*branches}:
        optional = len(branches) < len(branches_of(want))
        return stand_in(ctx, bound, branches, optional, place)
    if RowExpr in branches:
        return row_value(ctx, bound, _ROW_TYPES.get(place.label, ("any",)), place.label)
    if Expect in branches:
        return expect_value(ctx, bound)
    if Enough in branches:
        return enough_value(ctx, bound)
    if RowSets in branches:
        return row_sets(ctx, bound, place)
    if Model in branches:
        return _model(ctx, bound, place, branches)
    if len(branches) > 1 and any(get_origin(branch) is Literal for branch in branches):
        return _or_word(ctx, bound, branches, place)
    if len(branches) > 1 or is_choice(branches[0]):
        return _choice(ctx, bound, branches, place)
    return _single(ctx, bound, branches[0], place)


def _single(ctx: Context, bound: Bound, want: Any, place: Place) -> Any:
    origin = get_origin(want)
    if origin is Literal:
        return _literal(ctx, bound, [want], place)
    if origin is tuple:
        return _tuple(ctx, bound, get_args(want), place)
    if want is Hardware:
        return machines_of(ctx, bound, place)
    if want in THINGS:
        return thing_of(ctx, bound, want, place)
    if want is Amount:
        return amount_of(ctx, bound, place)
    if want is Range:
        return range_of(ctx, bound, place)
    if want in (int, float):
        return number_of(ctx, bound, want, place)
    return _plain_value(ctx, bound, want, place)


def _is_none(expr: s.Expr) -> bool:
    return isinstance(expr, s.Constant) and expr.value is None


# ---- plain values ------------------------------------------------------------------------------


def _literal(ctx: Context, bound: Bound, branches: list[Any], place: Place) -> Any:
    """One of a few words, written as a name or a text; the calls that may stand there too are only named."""
    expr = bound.expr
    choices = [w for branch in branches if get_origin(branch) is Literal for w in get_args(branch)]
    calls = [f"{kind_word(branch)}(…)" for branch in branches if is_choice(branch)]
    word = expr.id if isinstance(expr, s.Name) else None
    if isinstance(expr, s.Constant) and expr.value is None:
        word = "none"
    if word is None:
        value = evaluate(ctx, bound)
        if value is FAILED:
            return FAILED
        word = value if isinstance(value, str) else None
    if word in choices:
        return word
    hint = did_you_mean(word or "", [*choices, *calls], "choices are")
    return ctx.error("E211", f"`{place.label}` has no choice `{expr.span.text}`", expr.span, hint)


def _or_word(ctx: Context, bound: Bound, branches: list[Any], place: Place) -> Any:
    """``3`` or ``all``, ``near(…)`` or ``none``: one of the words, or a value of the other types."""
    others = [branch for branch in branches if get_origin(branch) is not Literal]
    expr, is_call = bound.expr, is_choice(others[0])
    is_name = isinstance(expr, s.Name) and look_up(bound.scope, expr) is None
    if is_name or isinstance(expr, s.Text) or (is_call and not isinstance(expr, s.CallExpr)):
        return _literal(ctx, bound, branches, place)
    if is_call:
        return _choice(ctx, bound, others, place)
    return _single(ctx, bound, others[0], place)


def _plain_value(ctx: Context, bound: Bound, want: Any, place: Place) -> Any:
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED
    if isinstance(want, type) and isinstance(value, want):
        return value
    is_group = isinstance(want, type) and issubclass(want, BaseModel)
    hint = f"`{place.label} {{ … }}`" if is_group else None
    return wrong_type(ctx, value, bound, _type_word(want), place, hint)


def _type_word(want: Any) -> str:
    if want in (str, bool):
        return "a text" if want is str else "true or false"
    return "settings in braces" if isinstance(want, type) else "another type"


def _tuple(ctx: Context, bound: Bound, parts: tuple[Any, ...], place: Place) -> Any:
    if not isinstance(bound.expr, s.ListExpr):
        if _is_word(bound, parts[0]):
            message = f"`{place.label}` takes a list, this is a word alone"
            return ctx.error("E301", message, bound.expr.span, f"`[{bound.expr.span.text}]`")
        value = evaluate(ctx, bound)
        takes = "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)} values"
        return FAILED if value is FAILED else wrong_type(ctx, value, bound, takes, place)
    items = bound.expr.items
    if parts[-1] is not Ellipsis and len(items) != len(parts):
        message = f"`{place.label}` takes a list of {len(parts)} values, not of {len(items)}"
        return ctx.error("E301", message, bound.expr.span)
    want = [parts[0]] * len(items) if parts[-1] is Ellipsis else list(parts)
    values = [_item(ctx, bound, item, w, place) for item, w in zip(items, want, strict=True)]
    return FAILED if FAILED in values else tuple(values)


def _is_word(bound: Bound, want: Any) -> bool:
    """Whether one of the words that a list takes stands there without its brackets."""
    words = get_args(want) if get_origin(want) is Literal else ()
    return isinstance(bound.expr, s.Name) and bound.expr.id in words


def _item(ctx: Context, bound: Bound, item: s.Item, want: Any, place: Place) -> Any:
    if want is MixPart:
        return mix_part(ctx, bound, item)
    if item.amount is not None:
        message = f"`{place.label}` takes no amounts"
        return ctx.error("E301", message, item.amount.span, fix=without_amount(item))
    return conform(ctx, bound.of(item.value), want, place)


# ---- names of declared things ------------------------------------------------------------------


def _model(ctx: Context, bound: Bound, place: Place, branches: list[Any]) -> Any:
    """A declared model, or where that may stand a stage that makes one, or a call."""
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED
    if isinstance(value, Draft) and value.kind == "model":
        return ctx.thing(value)
    trained = TrainedModel in branches
    if isinstance(value, Draft) and value.kind in MAKES_MODEL and trained:
        return construct(TrainedModel, stage=value.name)
    calls = [branch for branch in branches if branch not in (Model, TrainedModel)]
    if calls and isinstance(value, Choice):
        return _choice(ctx, bound, calls, place)
    takes = "a model or a stage that makes one" if trained else "a model"
    takes = listed([takes, *(f"`{kind_word(call)}(…)`" for call in calls)], "or")
    hint = "`model NAME = …` declares one" if isinstance(value, Choice) else None
    message = f"`{place.label}` takes {takes}, not {describe(value)}"
    return ctx.error("E309", message, bound.expr.span, hint)


def machines_of(ctx: Context, bound: Bound, place: Place) -> Any:
    """Declared hardware, or ``ray(…)`` in its place."""
    value = evaluate(ctx, bound)
    if isinstance(value, Choice):
        return checked_cluster(ctx, bound, _choice(ctx, bound, [Ray], place))
    found = thing_of(ctx, bound, Hardware, place)
    return machines(ctx, bound, found) if isinstance(found, Hardware) else found


def mix_part(ctx: Context, bound: Bound, item: s.Item) -> Any:
    """``accepted: 90%``."""
    rows = rows_of(ctx, bound.of(item.value), "from")
    if item.amount is None:
        name = item.value.span.text
        hint = f"`{name}: all` takes all of them"
        end = Span(item.span.file, item.span.end, item.span.end)
        fix = Fix("write `: all` after it", (Edit(end, ": all"),))
        return ctx.error("E307", f"`{name}` has no amount", item.span, hint, fix=fix)
    amount = _mix_amount(ctx, bound.of(item.amount))
    if isinstance(rows, Failed) or amount is FAILED:
        return FAILED
    return construct(MixPart, rows=rows.name, amount=amount)


def _mix_amount(ctx: Context, bound: Bound) -> Any:
    bound = ctx.follow(bound)
    expr = bound.expr
    if is_unpublished(bound):
        note(ctx, "from")
        return construct(All)
    if isinstance(expr, s.Name) and expr.id == "all":
        return construct(All)
    if isinstance(expr, s.CallExpr):
        return _choice(ctx, bound, [UpTo, Times], Place("amount", Setting(unit="rows", ge=1)))
    value = evaluate(ctx, bound)
    if isinstance(value, Quantity) and value.unit == "fraction":
        return construct(Share, fraction=float(value.value))
    if isinstance(value, Quantity):
        place = Place("amount", Setting(unit="rows", ge=1))
        number = in_place(ctx, value, expr.span, place, whole=True)
        return FAILED if number is FAILED else construct(Count, n=number)
    if value is FAILED:
        return FAILED
    hint = "amounts are all, 500, 20%, up_to(500), times(2)"
    return ctx.error("E301", f"an amount is not {describe(value)}", expr.span, hint)


# ---- choices -----------------------------------------------------------------------------------


def _choice(ctx: Context, bound: Bound, branches: list[Any], place: Place) -> Any:
    """A call whose name picks one of the types."""
    by_kind = {kind_word(branch): branch for branch in branches if is_choice(branch)}
    meant = by_kind.get(bound.expr.id) if isinstance(bound.expr, s.Name) else None
    if meant is not None and look_up(bound.scope, bound.expr) is None:
        return _without_brackets(ctx, bound, meant, place)
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED
    if isinstance(value, BaseModel) and type(value) in branches:
        return value
    if not isinstance(value, Choice):
        takes = listed([f"`{kind}(…)`" for kind in by_kind], "or")
        return wrong_type(ctx, value, bound, takes, place, _called_with(bound, value, by_kind))
    branch = by_kind.get(value.name)
    if branch is None:
        assert isinstance(value.bound.expr, s.CallExpr), "a Choice is made of a call"
        span = value.bound.expr.fn.span
        hint = did_you_mean(value.name, by_kind, "choices are")
        return ctx.error("E211", f"`{place.label}` has no choice `{value.name}(…)`", span, hint)
    return call_to_model(ctx, value.bound, branch)


def _without_brackets(ctx: Context, bound: Bound, meant: type[BaseModel], place: Place) -> Failed:
    """``algorithm = gspo``: the name of a choice without its call."""
    needed = [name for name, info in meant.model_fields.items() if info.is_required()]
    kind = kind_word(meant)
    message = f"`{place.label}` takes the call `{kind}(…)`, this is its name alone"
    shown = ", ".join(f"{name} = …" for name in needed)
    return ctx.error("E301", message, bound.expr.span, f"`{kind}({shown})`")


def _called_with(bound: Bound, value: object, by_kind: dict[str, type[BaseModel]]) -> str | None:
    """A number where a call is wanted is its argument, where a choice needs just one."""
    for kind, model in by_kind.items():
        needed = [info for info in model.model_fields.values() if info.is_required()]
        if isinstance(value, Quantity) and len(needed) == 1:
            return f"for example `{kind}({bound.expr.span.text})`"
    return None


def call_to_model(ctx: Context, bound: Bound, model: type[BaseModel]) -> Any:
    """``cosine(5e-5, warmup = 10%)``: arguments to fields, in order or by name."""
    assert isinstance(bound.expr, s.CallExpr), "only calls come here"
    call = bound.expr
    fields = {name: info for name, info in model.model_fields.items() if name != "kind"}
    twins = or_from_env(model)
    order = [name for name in fields if name.removesuffix("_env") not in twins or name in twins]
    values: dict[str, Any] = {}
    args, several = _gathered(call, model)
    if several is not None:
        values[order[0]] = _several(ctx, bound, several, fields[order[0]], order[0])
    for position, arg in enumerate(args):
        name = _field_of(ctx, call, arg, position, order)
        if name is None:
            values["?"] = FAILED
            continue
        if name in values:
            ctx.error("E206", f"`{name}` is given twice", arg.span)
        target, value = _argument(ctx, bound.of(arg.value), model, name)
        values[target] = value
    missing = [
        f"`{name}`"
        for name in order
        if (fields[name].is_required() or name in twins)
        and not {name, f"{name}_env"} & values.keys()
    ]
    if missing and "?" not in values:
        message = f"`{call.fn.span.text}(…)` lacks {listed(missing, 'and')}"
        return ctx.error("E308", message, call.span)
    return FAILED if FAILED in values.values() else construct(model, **values)


def _gathered(call: s.CallExpr, model: type[BaseModel]) -> tuple[list[s.Arg], list[s.Arg] | None]:
    """The arguments that fill one field each, and those that fill the first together, None where it is like any."""
    first = next((info for name, info in model.model_fields.items() if name != "kind"), None)
    bare = [arg for arg in call.args if arg.name is None]
    if first is None or not takes_several(first) or not bare:
        return [*call.args], None
    return [arg for arg in call.args if arg.name is not None], bare


def _several(ctx: Context, bound: Bound, args: list[s.Arg], info: FieldInfo, name: str) -> Any:
    want = get_args(info.annotation)[0]
    values = [conform(ctx, bound.of(arg.value), want, Place(name)) for arg in args]
    return FAILED if FAILED in values else tuple(values)


def _field_of(
    ctx: Context, call: s.CallExpr, arg: s.Arg, position: int, order: list[str]
) -> str | None:
    shown = f"`{call.fn.span.text}(…)`"
    if arg.name is not None:
        if arg.name.id in order:
            return arg.name.id
        hint = did_you_mean(arg.name.id, order, "it takes")
        ctx.error("E308", f"{shown} takes no `{arg.name.id}`", arg.name.span, hint)
    elif position < len(order):
        return order[position]
    else:
        ctx.error(
            "E308", f"{shown} takes at most {len(order)} argument{'s' * (len(order) > 1)}", arg.span
        )
    return None


def _argument(ctx: Context, bound: Bound, model: type[BaseModel], name: str) -> tuple[str, Any]:
    """The field that an argument fills and its value: ``url = env("X")`` fills ``url_env``."""
    expr = ctx.follow(bound).expr
    is_env = isinstance(expr, s.CallExpr) and expr.fn.span.text == "env"
    if is_env and f"{name}_env" in model.model_fields:
        assert isinstance(expr, s.CallExpr), "checked above"
        return f"{name}_env", _env(ctx, bound.of(expr), expr)
    info = model.model_fields[name]
    with ctx.within(name, bound):
        value = conform(ctx, bound, info.annotation, Place(name, setting_of(info.metadata)))
    return name, _from_home(ctx, bound, value) if name == "path" and value is not FAILED else value


def _from_home(ctx: Context, bound: Bound, path: str) -> str:
    """A path as the whole recipe counts it, from that of the file where it is written. A library has no data beside
    it: there a path starts from the recipe."""
    scope, home = bound.scope, ctx.root.home
    if scope.layer == "stdlib" or scope.folder == home or at_home(path).is_absolute():
        return path
    return os.path.relpath(scope.folder / path, home)


def _env(ctx: Context, bound: Bound, call: s.CallExpr) -> Any:
    if len(call.args) != 1 or call.args[0].name is not None:
        return ctx.error("E308", "`env` takes the name of a variable", call.span)
    return _plain_value(ctx, bound.of(call.args[0].value), str, Place("env"))
