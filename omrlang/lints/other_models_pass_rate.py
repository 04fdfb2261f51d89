"""W125: prompts are chosen by the pass rate of another model than the one that is trained on them.

Seen in a published recipe: difficulty is measured with an 8B model of one family and used for a 7B model of another. What is
neither too easy nor too hard for the one need not be for the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, looked_at, same_weights, warning
from omrlang.schema import Filter, Rl, Sample


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        root = graph.root(spec)
        for place, probe in _probes(graph, stage):
            asked = graph.root(probe)
            if root is not None and asked is not None and not same_weights(root, asked):
                message = (
                    f"rl `{spec.name}` trains `{root.name}`, and `{place.spec.name}` chooses or orders"
                    f" its rows by the pass rate of `{asked.name}`"
                )
                yield warning("W125", message, place.span)


def _probes(graph: Graph, stage: Stage) -> Iterator[tuple[Stage, Sample]]:
    """The stages that look at a pass rate, with the sampling that it was measured by."""
    for place in (stage, *graph.ancestors(stage)):
        for name in sorted(looked_at(place, "pass_rate")):
            probe = graph.by_name[name]
            for parent in graph.ancestors(probe) if isinstance(probe.spec, Filter) else ():
                if isinstance(parent.spec, Sample):
                    yield place, parent.spec
