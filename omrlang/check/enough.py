"""``until = 4 of (EXPR)`` to how many samples of a question are enough, and what they satisfy."""

from __future__ import annotations

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Failed
from omrlang.check.rows import row_value
from omrlang.schema import Sample, Spec
from omrlang.scope import Bound, Draft
from omrlang.types import Enough, construct

_HINT = "such as `4 of (format_ok and answer_matches)`"


def enough_value(ctx: Context, bound: Bound) -> Enough | Failed:
    """The call whose name is a number: `of` is lexed as the number's unit. FAILED after a report."""
    call = bound.expr
    if not isinstance(call, s.CallExpr) or not _is_of(call):
        message = "`until` takes how many samples are enough, and what they satisfy"
        return ctx.error("E301", message, call.span, _HINT)
    assert isinstance(call.fn, s.Number), "checked above"
    count = call.fn.value
    if count < 1 or count != int(count):
        return ctx.error("E305", "`until` counts whole samples, from 1 on", call.fn.span)
    if len(call.args) != 1 or call.args[0].name is not None:
        return ctx.error("E308", "`of` takes one condition in brackets", call.span, _HINT)
    of = row_value(ctx, bound.of(call.args[0].value), ("bool",), "until")
    return FAILED if isinstance(of, Failed) else construct(Enough, count=int(count), of=of)


def _is_of(call: s.CallExpr) -> bool:
    return isinstance(call.fn, s.Number) and call.fn.unit == "of"


def check_enough(ctx: Context, draft: Draft, spec: Spec) -> None:
    """More than there can be are never enough: reported."""
    if isinstance(spec, Sample) and spec.until is not None and spec.until.count > spec.n:
        slot = draft.settings["until"].value
        span = slot.expr.span if slot is not None else draft.span
        message = f"`until` waits for {spec.until.count} of at most {spec.n} samples"
        ctx.error("E305", message, span, "`n` is how many are drawn of a question at most")
