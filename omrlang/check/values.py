"""Expressions that look at no row, to values: arithmetic with units, texts, what names stand for."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias, assert_never

from pydantic import BaseModel

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.diagnostics import Reporter, did_you_mean
from omrlang.parse import MAX_NUMBER
from omrlang.scope import THINGS, Bound, Draft, Scope, look_up, report_unknown
from omrlang.source import Span
from omrlang.types import DENOMINATORS, UNITS, Gpu, Hardware, construct


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit in the table's form (``packs / gpu``), ``fraction`` where a percentage was written."""

    value: Decimal
    unit: str | None = None

    @property
    def shown(self) -> str:
        at_hand = self.value == 0 or Decimal("1e-4") <= abs(self.value) < 10**15
        number = (
            f"{self.value.normalize():,f}"
            if at_hand
            else f"{float(self.value):.4g}".replace("e-0", "e-")
        )
        return number if self.unit is None else f"{number} {self.unit}"


@dataclass(frozen=True, slots=True)
class Interval:
    lo: Quantity
    hi: Quantity
    mid: Quantity | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A call that means something only where it is known what is chosen among."""

    bound: Bound
    name: str


Value: TypeAlias = Quantity | Interval | str | bool | list[Any] | Choice | Draft | BaseModel | None


def evaluate(ctx: Context, bound: Bound) -> Value | Failed:
    """The value of an expression, or FAILED after a report."""
    expr = bound.expr
    match expr:
        case s.Number():
            return quantity(expr, ctx.reporter)
        case s.Text():
            return expr.value
        case s.Constant():
            return expr.value
        case s.Name() | s.Attr():
            return _named(ctx, bound, expr)
        case s.Paren():
            return evaluate(ctx, bound.of(expr.inner))
        case s.ListExpr():
            values = [evaluate(ctx, bound.of(item.value)) for item in expr.items]
            return FAILED if FAILED in values else values
        case s.CallExpr():
            name = expr.fn.id if isinstance(expr.fn, s.Name) else expr.fn.span.text
            return Choice(bound, name)
        case s.UnaryExpr():
            return _unary(ctx, bound, expr)
        case s.BinaryExpr():
            return _binary(ctx, bound, expr)
        case s.RangeExpr():
            return _interval(ctx, bound, expr)
        case s.IndexExpr():
            return ctx.error("E301", "indexing works in row expressions only", expr.span)
        case _:
            assert_never(expr)


def quantity(number: s.Number, reporter: Reporter) -> Quantity | Failed:
    """A literal with its unit looked up."""
    if number.unit is None:
        unit = "usd" if number.dollars else "fraction" if number.per_cent else None
        return Quantity(number.value, unit)
    top, _, bottom = (part.strip() for part in number.unit.partition("/"))
    if top.startswith("per "):
        if top != "per parent":
            reporter.error("E210", f"unknown unit `{top}`", number.span, "`per parent` exists")
            return FAILED
        return Quantity(number.value, top)
    if top and top not in UNITS:
        hint = did_you_mean(top, [*UNITS])
        if hint is None and top[-1].isdigit():  # such as `8 h100`
            hint = "devices are counted as `8 * gpus.h100_80gb`"
        reporter.error("E210", f"unknown unit `{top}`", _unit_span(number, top), hint)
        return FAILED
    words = ["usd"] if number.dollars else []
    words += [UNITS[top].name] if top else []
    assert bottom in ("", *DENOMINATORS), "the grammar's NUMBER and types.DENOMINATORS disagree"
    unit = " ".join(words) + (f" / {bottom}" if bottom else "")
    return Quantity(number.value, unit.strip() or None)


def _unit_span(number: s.Number, word: str) -> Span:
    start = number.span.start + max(0, number.span.text.rfind(word))
    return Span(number.span.file, start, start + len(word))


def in_unit(value: Quantity, unit: str | None) -> Decimal | None:
    """The number in ``unit``; None if its unit is another kind of thing. A bare number is taken as it is."""
    if value.unit is None or value.unit == unit:
        return value.value
    if value.unit == "fraction" and unit is None:
        return value.value
    if unit is None:
        return None
    top, _, bottom = value.unit.partition(" / ")
    want_top, _, want_bottom = unit.partition(" / ")
    have, want = UNITS.get(top), UNITS.get(want_top)
    if have is None or want is None or have.base != want.base or bottom != want_bottom:
        return None
    return value.value * Decimal(have.factor) / Decimal(want.factor)


def _named(ctx: Context, bound: Bound, expr: s.Name | s.Attr) -> Value | Failed:
    found = look_up(bound.scope, expr)
    match found:
        case Draft():
            return found
        case Scope():
            return ctx.error("E309", f"`{expr.span.text}` is a module", expr.span)
        case Bound():
            return _let(ctx, found, expr)
        case None:
            return _member(ctx, bound, expr)
        case _:
            assert_never(found)


def _let(ctx: Context, bound: Bound, expr: s.Name | s.Attr) -> Value | Failed:
    """The value of a ``let``, found once however often it is named."""
    if id(bound) not in ctx.lets:
        name = expr.span.text
        ctx.lets[id(bound)] = ctx.guarded(bound, name, expr.span, lambda: evaluate(ctx, bound))
    value: Value | Failed = ctx.lets[id(bound)]
    return value


def _member(ctx: Context, bound: Bound, expr: s.Name | s.Attr) -> Value | Failed:
    """``smollm2_135m.shape``: a part of a declared thing."""
    if not isinstance(expr, s.Attr) or not _leads_to_thing(bound.scope, expr.base):
        report_unknown(bound.scope, expr, ctx.reporter)
        return FAILED
    owner = evaluate(ctx, bound.of(expr.base))
    if isinstance(owner, Draft):
        if owner.kind not in THINGS:
            return ctx.error("E201", f"{an(owner.kind)} has no parts to name", expr.span)
        owner = ctx.thing(owner)
    if isinstance(owner, Failed):
        return FAILED
    fields = type(owner).model_fields if isinstance(owner, BaseModel) else {}
    if expr.name.id not in fields:
        hint = did_you_mean(expr.name.id, fields, "it has")
        message = f"`{expr.base.span.text}` has no `{expr.name.id}`"
        return ctx.error("E203", message, expr.name.span, hint)
    value: object = getattr(owner, expr.name.id)
    if value is None or isinstance(value, bool | str | BaseModel):
        return value
    return Quantity(Decimal(str(value)))


def _leads_to_thing(scope: Scope, expr: s.Expr) -> bool:
    """Whether a dotted name goes through something that is declared."""
    while isinstance(expr, s.Attr):
        if isinstance(look_up(scope, expr), Draft):
            return True
        expr = expr.base
    return isinstance(look_up(scope, expr), Draft)


def an(kind: str) -> str:
    """A kind with its article; no article where the word names a stuff."""
    if kind == "hardware":
        return kind
    return f"{'an' if kind in ('eval', 'sft', 'rl') else 'a'} {kind}"


def _interval(ctx: Context, bound: Bound, expr: s.RangeExpr) -> Value | Failed:
    found = [evaluate(ctx, bound.of(part)) for part in s.parts_of(expr)]
    if FAILED in found:
        return FAILED
    numbers = [item for item in found if isinstance(item, Quantity)]
    if len(numbers) < len(found):
        return ctx.error("E301", "a range stands between two numbers", expr.span)
    hi = numbers[-1]
    # `1 .. 2 GiB`: the unit of the end holds for the start.
    numbers = [Quantity(item.value, item.unit or hi.unit) for item in numbers]
    other = next((item for item in numbers if in_unit(item, hi.unit) is None), None)
    if other is not None:
        message = f"a range has one unit, not `{other.unit}` and `{hi.unit}`"
        return ctx.error("E304", message, expr.span)
    return Interval(numbers[0], hi, numbers[1] if len(numbers) > 2 else None)


def _unary(ctx: Context, bound: Bound, expr: s.UnaryExpr) -> Value | Failed:
    value = evaluate(ctx, bound.of(expr.x))
    if value is FAILED:
        return FAILED
    if expr.op == "not" and isinstance(value, bool):
        return not value
    if expr.op == "-" and isinstance(value, Quantity):
        return Quantity(-value.value, value.unit)
    return ctx.error("E301", f"`{expr.op}` does not go with {describe(value)}", expr.span)


def _binary(ctx: Context, bound: Bound, expr: s.BinaryExpr) -> Value | Failed:
    left, right = evaluate(ctx, bound.of(expr.left)), evaluate(ctx, bound.of(expr.right))
    if left is FAILED or right is FAILED:
        return FAILED
    if isinstance(left, str) and isinstance(right, str) and expr.op == "+":
        return left + right
    if isinstance(left, Quantity) and isinstance(right, Quantity):
        return _arithmetic(ctx, expr, left, right)
    if expr.op == "*" and isinstance(left, Quantity) and isinstance(right, Draft):
        return _machines(ctx, expr, left, right)
    shown = f"{describe(left)} and {describe(right)}"
    return ctx.error("E301", f"`{expr.op}` does not go with {shown}", expr.op_span)


def _arithmetic(
    ctx: Context, expr: s.BinaryExpr, left: Quantity, right: Quantity
) -> Value | Failed:
    result: Quantity | None = None
    if expr.op in ("+", "-"):
        other = in_unit(right, left.unit)
        unit = left.unit if left.unit is not None else right.unit
        if other is not None:
            result = Quantity(left.value + (other if expr.op == "+" else -other), unit)
    elif expr.op == "*" and _plain(left, right):
        unit = right.unit if left.unit in (None, "fraction") else left.unit
        result = Quantity(left.value * right.value, None if unit == "fraction" else unit)
    elif expr.op == "/" and right.unit in (None, "fraction"):
        if right.value == 0:
            return ctx.error("E305", "a division by zero", expr.span)
        result = Quantity(left.value / right.value, left.unit)
    if result is None:
        message = f"`{expr.op}` does not go with {left.shown} and {right.shown}"
        return ctx.error("E304", message, expr.op_span)
    if abs(result.value) > MAX_NUMBER:
        return ctx.error("E107", "the number is over 1e30", expr.span)
    return result


def _plain(left: Quantity, right: Quantity) -> bool:
    return left.unit in (None, "fraction") or right.unit in (None, "fraction")


def _machines(ctx: Context, expr: s.BinaryExpr, times: Quantity, draft: Draft) -> Value | Failed:
    """``32 * gpus.a800_80gb``, ``2 * pod``."""
    if draft.kind not in ("gpu", "hardware") or times.unit is not None:
        message = f"`*` does not go with {times.shown} and {describe(draft)}"
        return ctx.error("E301", message, expr.op_span)
    if times.value < 1 or times.value != int(times.value):
        return ctx.error(
            "E305", "the number of devices is a whole number from 1 on", expr.left.span
        )
    made = ctx.thing(draft)
    if isinstance(made, Gpu):
        return construct(Hardware, name=draft.name, gpu=made, count=int(times.value))
    if isinstance(made, Hardware):
        return made.model_copy(update={"count": made.count * int(times.value)})
    return FAILED


def describe(value: object) -> str:
    """What a value is, in a word or two, for messages."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case Quantity():
            return f"the number {value.shown}"
        case str():
            return f'the text "{value if len(value) <= 30 else value[:29] + "…"}"'
        case Interval():
            return "a range"
        case list():
            return "a list"
        case Choice():
            return f"`{value.name}(…)`"
        case Draft():
            return f"the {value.kind} `{value.name}`"
        case Hardware():
            return f"the hardware `{value.name}`"
        case _:
            return "a value of another type"
