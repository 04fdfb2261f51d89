"""W126: a cold start learns from sampled traces of which nobody dropped those that were cut off.

A response that hits `max_tokens` has no end and no answer. Trained on, it teaches to go on for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, asks_response, row_parents, setting_span, warning
from omrlang.schema import Filter, Sample, Sft
from omrlang.types import Model, Scripted


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft):
        for sampled in _unfiltered(graph, stage):
            message = (
                f"sft `{spec.name}` learns from traces of `{sampled.spec.name}` that were cut off"
                " at `max_tokens`"
            )
            related = ((setting_span(sampled, "max_tokens"), "cut off here"),)
            hint = 'a filter with `format_ok`, or with `finish == "stop"`, drops them'
            yield warning("W126", message, stage.span, hint, related)


def _unfiltered(graph: Graph, stage: Stage) -> Iterator[Stage]:
    """The sampling stages whose rows come here and no filter looked at what was written."""
    todo, seen = list(row_parents(stage)), set()
    while todo:
        name = todo.pop()
        parent = graph.by_name[name]
        if name in seen or (
            isinstance(parent.spec, Filter) and asks_response(parent.spec.keep.tree)
        ):
            continue
        seen.add(name)
        if isinstance(parent.spec, Sample) and not _is_program(parent.spec):
            yield parent
        todo += row_parents(parent)


def _is_program(spec: Sample) -> bool:
    return isinstance(spec.model, Model) and isinstance(spec.model.source, Scripted)
