"""W114: a training passes over its rows fifteen times or more.

Seen in a published recipe: the script says 15 epochs, 8,775 steps, the paper 1,232 steps, 2.1 epochs. Repeated data is worth
almost as much as new data for 4 passes; by about 15 repetitions most of what it could add is gone (arXiv 2305.16264).
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl, Sft

PASSES = 15


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft, Rl):
        least, _ = graph.num_epochs(spec) or (0, 0)
        if least >= PASSES:
            message = f"{spec.kind} `{spec.name}` passes over its rows {least:.0f} times"
            hint = "up to 4 passes repeated rows are worth almost as much as new ones"
            key = "epochs" if spec.epochs is not None else "steps"
            yield warning("W114", message, setting_span(stage, key), hint)
