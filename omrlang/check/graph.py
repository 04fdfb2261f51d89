"""The stages of a program to the order in which each stands after what it names."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang import syntax as s
from omrlang.check.context import Context
from omrlang.check.things import derived
from omrlang.scope import STAGES, Bound, Draft, Scope, Slot, look_up


def in_order(ctx: Context, scope: Scope) -> list[Draft]:
    """The file's stages in its own order as far as that goes, with stages of modules that they name.

    A stage that derives from another is filled up here. A cycle is reported once; its stages are refused, and so is one
    that derives from what was not understood: their own settings are still looked at.
    """
    done: dict[Draft, bool] = {}
    order: list[Draft] = []
    for draft in scope.drafts.values():
        if draft.kind in STAGES:
            _visit(ctx, draft, done, order)
    return order


def _visit(ctx: Context, root: Draft, done: dict[Draft, bool], order: list[Draft]) -> None:
    """Depth first with a stack of its own, because a recipe may have ten thousand stages in a row."""
    if root in done:
        return
    stack = [(root, _enter(ctx, root, done))]
    while stack:
        draft, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            done[draft] = True
            order.append(draft)
        elif child not in done:
            stack.append((child, _enter(ctx, child, done)))
        elif not done[child]:
            names = " → ".join([*(d.name for d, _ in stack[_index(stack, child) :]), child.name])
            ctx.refused.add(child)
            ctx.error("E212", f"stages wait for each other: {names}", child.span)


def _index(stack: list[tuple[Draft, Iterator[Draft]]], draft: Draft) -> int:
    return next(position for position, (d, _) in enumerate(stack) if d is draft)


def _enter(ctx: Context, draft: Draft, done: dict[Draft, bool]) -> Iterator[Draft]:
    done[draft] = False
    full = derived(ctx, draft)
    if full is None:
        ctx.refused.add(draft)
        full = draft
    draft.clauses, draft.clause_spans, draft.settings = (
        full.clauses,
        full.clause_spans,
        full.settings,
    )
    draft.base = None
    return iter(_named_stages(draft))


def _named_stages(draft: Draft) -> list[Draft]:
    """The stages that a stage's clauses and settings name. A source names none."""
    if draft.kind in ("source", "benchmark"):
        return []
    todo = [*draft.clauses.values(), *_values(draft.settings)]
    seen: set[int] = set()
    found: dict[Draft, None] = {}
    while todo:
        bound = todo.pop()
        if id(bound.expr) in seen:
            continue
        seen.add(id(bound.expr))
        target = look_up(bound.scope, bound.expr)
        if isinstance(target, Draft) and target.kind in STAGES:
            found[target] = None
        elif isinstance(target, Bound):
            todo.append(target)
        else:
            todo.extend(bound.of(part) for part in s.parts_of(bound.expr))
    return sorted(found, key=lambda target: target.span.start)


def _values(slots: dict[str, Slot]) -> Iterator[Bound]:
    for slot in slots.values():
        if slot.value is not None:
            yield slot.value
        yield from _values(slot.group)
