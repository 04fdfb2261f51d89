"""The rows of each source through the stages that choose among rows become a table, in blocks that fit the width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omrlang.cli.figures import marked
from omrlang.plan import Estimate, Plan, PlanStage

TITLE = "Rows by source"
CHOOSING = ("mix", "sample", "filter")


def funnel_lines(plan: Plan, width: int) -> Iterator[str]:
    """Only where there are several sources to compare."""
    stages, names = funnel(plan)
    if len(names) < 2:
        return
    first = max(len(TITLE), *(len(name) + 2 for name in names))
    size = max(9, *(len(stage.name) for stage in stages)) + 3
    room = max(1, (width - first) // size)
    for start in range(0, len(stages), room):
        yield from _block(
            stages[start : start + room], names, first, size, TITLE if not start else ""
        )


def funnel(plan: Plan) -> tuple[list[PlanStage], list[str]]:
    """The stages that choose among rows, and the sources of those rows."""
    stages = [stage for stage in plan.stages if stage.spec.kind in CHOOSING and stage.costs]
    named = (name for stage in stages if stage.costs for name in stage.costs.rows_by_source)
    return stages, list(dict.fromkeys(named))


def rows_of(stage: PlanStage, source: str) -> Estimate | None:
    """Rows of that source that the stage gives; None where none come through it."""
    return stage.costs.rows_by_source.get(source) if stage.costs else None


def _block(
    stages: Sequence[PlanStage], names: Sequence[str], first: int, size: int, title: str
) -> Iterator[str]:
    yield f"{title:<{first}}" + "".join(f"{stage.name:>{size}}" for stage in stages)
    for name in names:
        found = [rows_of(stage, name) for stage in stages]
        if any(item is not None for item in found):
            cells = ("-" if item is None else marked(item) for item in found)
            yield f"  {name}".ljust(first) + "".join(f"{cell:>{size}}" for cell in cells)
