"""W105: the judge of a cascade is the model whose answers it judges.

Models favour what they wrote themselves (arXiv 2404.13076), so such a judge lets through what a rule had refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, judges, same_weights, setting_span, verifies, warning
from omrlang.schema import Eval, Rl, Sample
from omrlang.types import ModelRef, TrainedModel, construct


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage in graph.stages:
        key, expr = verifies(stage)
        asked = [call.model for call in judges(expr.tree) if call.model] if expr else []
        writers = _writers(graph, stage) if asked else []
        if any(same_weights(judge, writer) for judge in asked for writer in writers):
            message = (
                f"in {stage.spec.kind} `{stage.spec.name}` a model judges what it wrote itself"
            )
            yield warning("W105", message, setting_span(stage, key))


def _writers(graph: Graph, stage: Stage) -> list[ModelRef]:
    """The models whose answers a stage verifies."""
    match stage.spec:
        case Rl(model=model, name=name):
            return [model, construct(TrainedModel, stage=name)]
        case Eval(model=model):
            return [model]
        case _:
            found = graph.ancestors(stage)
            return [parent.spec.model for parent in found if isinstance(parent.spec, Sample)]
