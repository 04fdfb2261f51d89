"""W104: rows of an evaluation set reach the training of the model that is evaluated on it."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, warning
from omrlang.schema import Eval, Source


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, _ in graph.of(Eval):
        tested = {
            source.place: found for found, source in graph.sources(stage) if _is_known(source)
        }
        for trained in graph.trainings(stage):
            for found, source in graph.sources(trained):
                if source.place in tested:
                    yield _warning(stage, trained, tested[source.place], found)


def _is_known(source: Source) -> bool:
    """Whether its place was published; two that were not are not the same."""
    return not any(path.startswith("from") for path in source.unpublished)


def _warning(evaluation: Stage, trained: Stage, tested: Stage, source: Stage) -> Diagnostic:
    message = (
        f"eval `{evaluation.spec.name}` tests on `{tested.spec.name}`, whose data"
        f" `{trained.spec.name}` trained on"
    )
    related = ((source.span, "trained on as this"),) if source is not tested else ()
    return warning("W104", message, evaluation.span, None, related)
