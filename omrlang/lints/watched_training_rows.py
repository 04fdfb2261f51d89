"""W130: the rows of `watch` come from data that the model is trained on, here or in a stage before.

Figures on them rise with what was learned by heart, so that the curve that should end a run in time never turns.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl, Source


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        for name in spec.watch.rows.names if spec.watch is not None else ():
            if found := _trained_on(graph, stage, name):
                source, trained = found
                message = (
                    f"rl `{spec.name}` watches `{name}`, whose data"
                    f" `{trained.spec.name}` is trained on"
                )
                hint = "rows that no stage trains on show what was learned"
                related = ((source.span, "trained on as this"),) if source.spec.name != name else ()
                yield warning("W130", message, setting_span(stage, "watch.from"), hint, related)


def _trained_on(graph: Graph, stage: Stage, name: str) -> tuple[Stage, Stage] | None:
    """The first source of a training that is one of the watched ones too, and that training."""
    watched = [spec.place for _, spec in graph.sources(graph.by_name[name]) if _is_known(spec)]
    for trained in (stage, *graph.trainings(stage)):
        for source, spec in graph.sources(trained):
            if spec.place in watched:
                return source, trained
    return None


def _is_known(source: Source) -> bool:
    """Whether its place was published; two that were not are not the same."""
    return not any(path.startswith("from") for path in source.unpublished)
