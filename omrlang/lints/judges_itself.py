"""W105: the judge of a cascade is the model whose answers it judges."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Recipe, Stage
from omrlang.lints.places import ancestors, calls, setting_span
from omrlang.schema import Eval, Filter, Rl, Sample
from omrlang.types import Model, ModelRef, RowExpr, TrainedModel


def lint(recipe: Recipe) -> Iterator[Diagnostic]:
    for stage in recipe.stages:
        key, expr, writers = _judged(recipe, stage)
        judges = [call.model for call in calls(expr.tree) if call.model] if expr else []
        for judge in judges:
            if any(_same(judge, writer) for writer in writers):
                message = f"in {stage.spec.kind} `{stage.spec.name}` a model judges what it wrote itself"
                yield Diagnostic("W105", message, setting_span(stage, key), "warning")


def _judged(recipe: Recipe, stage: Stage) -> tuple[str, RowExpr | None, list[ModelRef]]:
    """The setting that verifies, and whose answers it looks at."""
    match stage.spec:
        case Filter(keep=keep):
            samples = [s.spec for s in ancestors(recipe, stage) if isinstance(s.spec, Sample)]
            return "keep", keep, [sample.model for sample in samples]
        case Rl(reward=reward, model=model):
            return "reward", reward, [model, TrainedModel(stage=stage.spec.name)]
        case Eval(score=score, model=model):
            return "score", score, [model]
        case _:
            return "", None, []


def _same(one: ModelRef, other: ModelRef) -> bool:
    """The same weights, however they are reached."""
    if isinstance(one, Model) and isinstance(other, Model):
        return one.source == other.source
    return one == other
