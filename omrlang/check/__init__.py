"""A program of drafts to a checked recipe: values, units, columns, the order of stages."""

from __future__ import annotations

from typing import Annotated

from omrlang.check.conform import conform
from omrlang.check.context import FAILED, Context, Place
from omrlang.check.fill import fill
from omrlang.check.graph import in_order
from omrlang.check.lets import check_lets
from omrlang.check.stages import make_stage
from omrlang.check.things import build
from omrlang.diagnostics import Reporter
from omrlang.hir import Budget, Provenance, Recipe, Stage, Thing
from omrlang.scope import STAGES, THINGS, Scope
from omrlang.types import Frozen, Model, Setting


class Limits(Frozen):
    """The settings of ``budget { … }``."""

    p50: Annotated[float | None, Setting("limit on the middle estimate", unit="usd", ge=0)] = None
    p90: Annotated[float | None, Setting("limit on the 90th percentile", unit="usd", ge=0)] = None


def check(scope: Scope, reporter: Reporter) -> Recipe | None:
    """The recipe, or None if an error was reported, now or before."""
    recipe = check_in(Context(reporter, scope, build))
    if recipe is not None:
        written = sum(draft.kind in STAGES for draft in scope.drafts.values())
        assert len(recipe.stages) >= written, "a stage is left out only where an error says why"
    return recipe


def check_in(ctx: Context) -> Recipe | None:
    """The same with what was found out on the way left in ``ctx``, also where something is wrong."""
    scope, reporter = ctx.root, ctx.reporter
    ctx.seed = _seed(ctx, scope)
    for draft in scope.drafts.values():
        if draft.kind in THINGS:
            ctx.thing(draft)
    stages = [make_stage(ctx, draft) for draft in in_order(ctx, scope)]
    check_lets(ctx, scope)
    ctx.provenance = {}
    budget = _budget(ctx, scope)
    if reporter.has_errors:
        return None
    made = tuple(stage for stage in stages if isinstance(stage, Stage))
    models = tuple(thing for thing in ctx.things.values() if isinstance(thing, Model))
    return Recipe(
        scope.file.path,
        scope.home,
        ctx.seed,
        made,
        models,
        budget,
        because=scope.because,
        things=_things(ctx),
        settings=_settings(ctx, scope),
    )


def _things(ctx: Context) -> tuple[Thing, ...]:
    """Everything that was made of a declaration, in the order in which it was needed."""
    made = ((draft, value) for draft, value in ctx.things.items() if value is not FAILED)
    return tuple(
        Thing(draft.kind, draft.span, value, ctx.origins.get(draft, {})) for draft, value in made
    )


def _settings(ctx: Context, scope: Scope) -> dict[str, Provenance]:
    """Who set the recipe's own values: what the budget's were gathered into, and the seed."""
    budget = {f"budget.{key}": found for key, found in ctx.provenance.items()}
    if scope.seed is None:
        return {"seed": Provenance("default", None), **budget}
    return {"seed": Provenance(scope.seed.layer, scope.seed.expr.span), **budget}


def _seed(ctx: Context, scope: Scope) -> int:
    if scope.seed is None:
        return 0
    value = conform(ctx, scope.seed, int, Place("seed", Setting("the recipe's seed", ge=0)))
    return 0 if value is FAILED else int(value)


def _budget(ctx: Context, scope: Scope) -> Budget | None:
    if not scope.budget:
        return None
    span = next(iter(scope.budget.values())).key.span
    values = fill(ctx, Limits, scope.budget, "`budget`", span)
    if FAILED in values.values() or not values:
        return None
    return Budget(values.get("p50"), values.get("p90"))
