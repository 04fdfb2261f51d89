"""A stage to the most rows that it can give, as far as its text says; a mix that asks for more of a part is reported."""

from __future__ import annotations

from collections.abc import Iterable

from omrlang import syntax as s
from omrlang.check.context import Context, Traits
from omrlang.schema import Filter, Mix, Sample, Source, Spec
from omrlang.scope import Draft
from omrlang.source import Span
from omrlang.types import All, Count, Share, Synthetic, Times, UpTo


def most_rows(ctx: Context, spec: Spec) -> int | None:
    """None where nobody has said how many there are."""
    match spec:
        case Source():
            there = spec.place.n if isinstance(spec.place, Synthetic) else spec.rows
            return _least((there, spec.take))
        case Filter(rows=name):
            return _of(ctx, name)
        case Sample(rows=name, n=n):
            asked = _of(ctx, name)
            return None if asked is None else asked * n
        case Mix():
            taken = [_taken(ctx, spec, number) for number in range(len(spec.parts))]
            counts = [count for count in taken if count is not None]
            return sum(counts) if len(counts) == len(taken) else None
        case _:
            return None


def check_amounts(ctx: Context, draft: Draft, spec: Mix) -> None:
    """What is taken of a part must be there: a run would stop when it has read the part."""
    spans = _amount_spans(ctx, draft)
    for part, share, span in zip(spec.parts, spec.share_rows(), spans, strict=True):
        wanted = part.amount.n if isinstance(part.amount, Count) else share
        there = _of(ctx, part.rows)
        if there is not None and isinstance(part.amount, Count | Share) and wanted > there:
            message = f"{wanted:,} rows of `{part.rows}` are asked, there are at most {there:,}"
            hint = f"`all`, or `up_to({wanted:_})`; `times(2)` repeats them"
            ctx.error("E307", message, span, hint)


def _of(ctx: Context, name: str) -> int | None:
    return ctx.traits.get(name, Traits()).most


def _least(counts: Iterable[int | None]) -> int | None:
    return min((count for count in counts if count is not None), default=None)


def _taken(ctx: Context, spec: Mix, number: int) -> int | None:
    part = spec.parts[number]
    there = _of(ctx, part.rows)
    match part.amount:
        case All():
            return there
        case Count(n=n):
            return n
        case Share():
            return spec.share_rows()[number]
        case UpTo(n=n):
            return _least((there, n))
        case Times(k=k):
            return None if there is None else there * k


def _amount_spans(ctx: Context, draft: Draft) -> list[Span]:
    listed = ctx.follow(draft.clauses["from"]).expr
    assert isinstance(listed, s.ListExpr), "the parts of a mix were made of a list"
    return [item.amount.span if item.amount else item.span for item in listed.items]
