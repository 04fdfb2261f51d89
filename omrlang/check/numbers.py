"""Expressions to numbers in the unit and within the range of their place: plain ones, amounts and ranges."""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Any

from omrlang.check.context import FAILED, Context, Failed, Place
from omrlang.check.values import Choice, Interval, Quantity, describe, evaluate, in_unit
from omrlang.diagnostics import listed
from omrlang.scope import Bound
from omrlang.source import Span
from omrlang.types import Amount, Range, Setting, construct


def wrong_type(
    ctx: Context, value: object, bound: Bound, takes: str, place: Place, hint: str | None = None
) -> Failed:
    if isinstance(value, Choice) and value.name == "env":
        message = "`env` stands only where a value decides nothing of the result"
        return ctx.error("E310", message, bound.expr.span)
    message = f"`{place.label}` takes {takes}, not {describe(value)}"
    return ctx.error("E301", message, bound.expr.span, hint)


def number_of(ctx: Context, bound: Bound, want: type, place: Place) -> Any:
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED
    whole = want is int
    if not isinstance(value, Quantity):
        return wrong_type(ctx, value, bound, "a whole number" if whole else "a number", place)
    return in_place(ctx, value, bound.expr.span, place, whole=whole)


def in_place(ctx: Context, value: Quantity, span: Span, place: Place, *, whole: bool) -> Any:
    """A number in the unit of its place and within its range."""
    setting = place.setting or Setting()
    number = in_unit(value, setting.unit)
    if number is None or (value.unit == "fraction" and whole):
        takes = f"a number of {setting.unit}" if setting.unit else "a number without a unit"
        shown = "a percentage" if value.unit == "fraction" else f"`{value.unit}`"
        message = f"`{place.label}` takes {takes}, not {shown}"
        return ctx.error("E304", message, span)
    if whole and number != number.to_integral_value():
        message = f"`{place.label}` takes a whole number, not {number.normalize():f}"
        return ctx.error("E301", message, span)
    if not _in_range(ctx, number, span, place.label, setting):
        return FAILED
    return int(number) if whole else float(number)


def _in_range(ctx: Context, number: Decimal, span: Span, label: str, setting: Setting) -> bool:
    for limit, rule, is_kept in (
        (setting.ge, "at least", operator.ge),
        (setting.gt, "over", operator.gt),
        (setting.le, "at most", operator.le),
        (setting.lt, "under", operator.lt),
    ):
        if limit is not None and not is_kept(number, Decimal(str(limit))):
            shown = f"{number.normalize():f}"
            ctx.error("E305", f"`{label}` is {rule} {limit:g}, not {shown}", span)
            return False
    return True


def amount_of(ctx: Context, bound: Bound, place: Place) -> Any:
    """A number whose unit says what it means; a bare one where only one unit is possible."""
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED
    units = place.setting.units if place.setting else ()
    if not isinstance(value, Quantity):
        return wrong_type(ctx, value, bound, "a number with a unit", place)
    unit = value.unit or (units[0] if len(units) == 1 else None)
    if unit not in units:
        shown = listed(["`%`" if u == "fraction" else f"`{u}`" for u in units], "or")
        found = f"not `{unit}`" if unit else "this has none"
        return ctx.error(
            "E304", f"`{place.label}` needs the unit {shown}, {found}", bound.expr.span
        )
    if value.value < 0:
        return ctx.error("E305", f"`{place.label}` is at least 0", bound.expr.span)
    setting = place.setting or Setting()
    if not _in_range(ctx, value.value, bound.expr.span, place.label, setting):
        return FAILED
    return construct(Amount, value=float(value.value), unit=unit)


def range_of(ctx: Context, bound: Bound, place: Place) -> Any:
    value = evaluate(ctx, bound)
    if value is FAILED:
        return FAILED
    if isinstance(value, Quantity):
        value = Interval(value, value)
    if not isinstance(value, Interval):
        return wrong_type(ctx, value, bound, "a range `lo .. hi` or a number", place)
    span = bound.expr.span
    given = [item for item in (value.lo, value.mid, value.hi) if item is not None]
    ends = [in_place(ctx, end, span, place, whole=False) for end in given]
    if FAILED in ends:
        return FAILED
    if ends != sorted(ends):
        return ctx.error("E305", f"`{place.label}` is a range from the lower to the higher", span)
    return construct(Range, lo=ends[0], hi=ends[-1], mid=ends[1] if len(ends) > 2 else None)
