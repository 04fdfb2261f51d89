"""``expect = share(math) in 10% .. 11% and rows > 5_000`` to limits on a stage's numbers."""

from __future__ import annotations

from typing import get_args

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.values import Interval, Quantity, an, evaluate, in_unit
from omrlang.diagnostics import did_you_mean, listed
from omrlang.format import format_expression
from omrlang.schema import Mix, Spec
from omrlang.scope import Bound, Draft
from omrlang.types import COUNTED_BY, METRIC_UNITS, Expect, Limit, Metric, construct

METRICS: tuple[Metric, ...] = get_args(Metric)
_HINT = "such as `rows in 1_000 .. 1_200`, `kept > 40%` or `share(math) in 10% .. 11%`"
_SIDES = {">": "lo", ">=": "lo", "<": "hi", "<=": "hi"}


def expect_value(ctx: Context, bound: Bound) -> Expect | Failed:
    """All limits of the expression, or FAILED after a report."""
    limits = [_limit(ctx, bound.of(part)) for part in _parts(bound.expr)]
    found = tuple(limit for limit in limits if isinstance(limit, Limit))
    if len(found) < len(limits):
        return FAILED
    return construct(Expect, text=format_expression(bound.expr), limits=found)


def check_expect(ctx: Context, draft: Draft, spec: Spec) -> None:
    """Limits on what a stage of this kind never counts would hold whatever happens: reported."""
    slot = draft.settings.get("expect")
    given = slot.given if slot is not None else None
    if spec.expect is None or given is None:
        return
    exprs = _parts(ctx.follow(given).expr)
    for limit, expr in zip(spec.expect.limits, exprs, strict=True):
        kinds = COUNTED_BY.get(limit.metric)
        if kinds is not None and spec.kind not in kinds:
            message = f"{an(spec.kind)} has no number `{limit.metric}`"
            ctx.error("E201", message, expr.span, f"{listed([*map(an, kinds)], 'or')} has it")
        elif isinstance(spec, Mix) and limit.metric == "share":
            _check_part(ctx, spec, limit, expr)


def _check_part(ctx: Context, spec: Mix, limit: Limit, expr: s.Expr) -> None:
    parts = [part.rows for part in spec.parts]
    if limit.of not in parts:
        hint = f"its parts are {listed([f'`{part}`' for part in parts], 'and')}"
        ctx.error("E309", f"`{limit.of}` is no part of mix `{spec.name}`", expr.span, hint)


def _parts(expr: s.Expr) -> list[s.Expr]:
    if isinstance(expr, s.Paren):
        return _parts(expr.inner)
    if isinstance(expr, s.BinaryExpr) and expr.op == "and":
        return _parts(expr.left) + _parts(expr.right)
    return [expr]


def _limit(ctx: Context, bound: Bound) -> Limit | Failed:
    expr = bound.expr
    if not isinstance(expr, s.BinaryExpr) or expr.op not in ("in", "==", *_SIDES):
        return ctx.error("E301", "`expect` takes limits on the stage's numbers", expr.span, _HINT)
    metric = _metric(ctx, expr.left)
    if isinstance(metric, Failed):
        return FAILED
    of = _part(ctx, bound, expr.left) if metric == "share" else None
    ends = _ends(ctx, bound, expr, metric)
    if isinstance(ends, Failed) or isinstance(of, Failed):
        return FAILED
    lo, hi = ends
    strict = expr.op in ("<", ">")
    return construct(
        Limit, metric=metric, of=of, lo=lo, hi=hi, strict=strict, text=format_expression(expr)
    )


def _metric(ctx: Context, expr: s.Expr) -> Metric | Failed:
    name = expr.fn if isinstance(expr, s.CallExpr) else expr
    word = name.id if isinstance(name, s.Name) else ""
    for metric in METRICS:
        if metric == word:
            return metric
    hint = did_you_mean(word, METRICS, "a stage has")
    return ctx.error("E201", f"a stage has no number `{expr.span.text}`", expr.span, hint)


def _part(ctx: Context, bound: Bound, expr: s.Expr) -> str | Failed:
    """The input of the stage whose share is meant."""
    args = expr.args if isinstance(expr, s.CallExpr) else ()
    if len(args) != 1 or args[0].name is not None:
        return ctx.error("E308", "`share` takes the name of one input", expr.span)
    value = evaluate(ctx, bound.of(args[0].value))
    if isinstance(value, Failed):
        return FAILED
    if isinstance(value, Draft):
        return value.name
    return ctx.error("E309", "`share` takes the name of one input", args[0].span)


def _ends(
    ctx: Context, bound: Bound, expr: s.BinaryExpr, metric: Metric
) -> tuple[float | None, float | None] | Failed:
    value = evaluate(ctx, bound.of(expr.right))
    if isinstance(value, Failed):
        return FAILED
    if isinstance(value, Quantity) and expr.op != "in":
        value = Interval(value, value)
    if not isinstance(value, Interval) or value.mid is not None:
        return ctx.error("E301", "`in` takes a range `lo .. hi`", expr.right.span, _HINT)
    ends = [in_unit(end, METRIC_UNITS[metric]) for end in (value.lo, value.hi)]
    lo, hi = ends
    if lo is None or hi is None:
        unit = METRIC_UNITS[metric] or "a plain number or %"
        return ctx.error("E304", f"`{metric}` is counted in {unit}", expr.right.span)
    if lo > hi:
        return ctx.error("E305", "a range goes from the lower to the higher", expr.right.span)
    side = _SIDES.get(expr.op)
    return (
        None if side == "hi" else float(lo),
        None if side == "lo" else float(hi),
    )
