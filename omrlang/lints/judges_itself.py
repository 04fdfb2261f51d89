"""W105: the judge of a cascade is the model whose answers it judges."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, calls, setting_span
from omrlang.schema import Eval, Filter, Rl, Sample
from omrlang.types import Model, ModelRef, RowExpr, TrainedModel


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage in graph.stages:
        key, expr = _verifies(stage)
        judges = [call.model for call in calls(expr.tree) if call.model] if expr else []
        writers = _writers(graph, stage) if judges else []
        if any(_same(judge, writer) for judge in judges for writer in writers):
            message = (
                f"in {stage.spec.kind} `{stage.spec.name}` a model judges what it wrote itself"
            )
            yield Diagnostic("W105", message, setting_span(stage, key), "warning")


def _verifies(stage: Stage) -> tuple[str, RowExpr | None]:
    """The setting in which a judge may stand."""
    match stage.spec:
        case Filter(keep=keep):
            return "keep", keep
        case Rl(reward=reward):
            return "reward", reward
        case Eval(score=score):
            return "score", score
        case _:
            return "", None


def _writers(graph: Graph, stage: Stage) -> list[ModelRef]:
    """The models whose answers a stage verifies."""
    match stage.spec:
        case Rl(model=model, name=name):
            return [model, TrainedModel(stage=name)]
        case Eval(model=model):
            return [model]
        case _:
            found = graph.ancestors(stage)
            return [parent.spec.model for parent in found if isinstance(parent.spec, Sample)]


def _same(one: ModelRef, other: ModelRef) -> bool:
    """The same weights, however they are reached."""
    if isinstance(one, Model) and isinstance(other, Model):
        return one.source == other.source
    return one == other
