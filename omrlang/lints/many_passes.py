"""W114: a training passes over its rows fifteen times or more.

Seen in a published recipe: the script says 15 epochs, 8,775 steps, the paper 1,232 steps, 2.1 epochs. Repeated data is worth
almost as much as new data for 4 passes; by about 15 repetitions most of what it could add is gone (arXiv 2305.16264).
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl, Sft
from omrlang.settle import num_devices, settled_amount

PASSES = 15


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft, Rl):
        passes = _passes(graph, spec)
        if passes is not None and passes >= PASSES:
            message = f"{spec.kind} `{spec.name}` passes over its rows {passes:.0f} times"
            hint = "up to 4 passes repeated rows are worth almost as much as new ones"
            key = "epochs" if spec.epochs is not None else "steps"
            yield warning("W114", message, setting_span(stage, key), hint)


def _passes(graph: Graph, spec: Sft | Rl) -> float | None:
    """Given, or by how many rows the steps take; of an ``sft`` with packs a plan knows."""
    if spec.epochs is not None or spec.steps is None:
        return spec.epochs
    batch = settled_amount(spec.batch, num_devices(spec))
    rows = graph.num_rows(spec.rows)
    if batch.unit in ("prompts", "rows") and rows:
        return spec.steps * batch.value / rows
    found = graph.costs[spec.name].extra.get("epochs") if spec.name in graph.costs else None
    return found.lo if found is not None else None
