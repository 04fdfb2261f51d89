"""A plan becomes a line above each stage: what it would do, how many rows come out, what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lsprotocol.types import CodeLens, Command

from omrlang import syntax as s
from omrlang.cli.figures import rows, spread
from omrlang.compiler import split_target
from omrlang.lsp.positions import to_range
from omrlang.lsp.view import View
from omrlang.plan import Costs, Plan, PlanStage
from omrlang.scope import STAGES


def code_lenses(view: View, plan: Plan, encoding: str) -> Iterator[CodeLens]:
    """A line above each stage of the file that the plan has; of a file with sweeps it is the first variant's plan."""
    stages = {stage.name: stage for stage in plan.stages}
    _, variant = split_target(Path(plan.recipe))
    for statement in view.tree.statements:
        match statement:
            case s.Declaration() if statement.kind.id in STAGES:
                name, span = statement.name.id, statement.name.span
            case s.Reopen():
                name, span = ".".join(part.id for part in statement.path), statement.span
            case _:
                continue
        if name in stages:
            title = lens_text(stages[name]) + (f" · {variant}" if variant else "")
            yield CodeLens(to_range(span, encoding), Command(title, ""))


def lens_text(stage: PlanStage) -> str:
    """``redo · 3,000 → 1,930 rows · 12 min · $4.20``: what is known of it."""
    costs = stage.costs
    return " · ".join([stage.action, *(_figures(costs) if costs else ())])


def _figures(costs: Costs) -> Iterator[str]:
    before, after = costs.rows_in.mid, costs.rows_out.mid
    if before and after is not None and before != after:
        yield f"{rows(before)} → {rows(after)} rows"
    elif after is not None:
        yield f"{rows(after)} rows"
    if costs.seconds.mid is not None:
        yield spread(costs.seconds)
    if costs.usd.mid:
        yield spread(costs.usd)
