"""W104: rows of an evaluation set reach the training of the model that is evaluated on it."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph
from omrlang.schema import Eval, Rl, Sft, Source
from omrlang.types import TrainedModel


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage in graph.stages:
        if not isinstance(stage.spec, Eval):
            continue
        tested = {s.spec.place: s for s in graph.ancestors(stage) if isinstance(s.spec, Source)}
        for trained in _trainings(graph, stage):
            for source in graph.ancestors(trained):
                if isinstance(source.spec, Source) and source.spec.place in tested:
                    yield _warning(stage, trained, tested[source.spec.place], source)


def _trainings(graph: Graph, stage: Stage) -> Iterator[Stage]:
    """The stages that made the model of a stage, the last first."""
    while isinstance(stage.spec, Eval | Sft | Rl) and isinstance(stage.spec.model, TrainedModel):
        stage = graph.by_name[stage.spec.model.stage]
        yield stage


def _warning(evaluation: Stage, trained: Stage, tested: Stage, source: Stage) -> Diagnostic:
    message = (
        f"eval `{evaluation.spec.name}` tests on `{tested.spec.name}`, whose data"
        f" `{trained.spec.name}` trained on"
    )
    related = ((source.span, "trained on as this"),) if source is not tested else ()
    return Diagnostic("W104", message, evaluation.span, "warning", None, related)
