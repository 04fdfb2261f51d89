"""W103: a model trained or evaluated under another prompt than its rows were sampled, or it was trained, under.

Seen in a published recipe: four system prompts, one each for the teacher, the stored rows, the RL loader and the tests.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, same_prompt, setting_span, warning
from omrlang.schema import Eval, Rl, Sample, Sft
from omrlang.types import Prompt, TrainedModel


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage in graph.stages:
        if isinstance(stage.spec, Sft) and stage.spec.prompt is not None:
            yield from _against_samples(graph, stage, stage.spec.prompt)
        if isinstance(stage.spec, Eval | Rl) and isinstance(stage.spec.model, TrainedModel):
            trained = graph.by_name[stage.spec.model.stage]
            yield from _against_training(stage, stage.spec.prompt, trained)


def _against_samples(graph: Graph, stage: Stage, prompt: Prompt) -> Iterator[Diagnostic]:
    for parent in graph.ancestors(stage):
        if isinstance(parent.spec, Sample) and not same_prompt(parent.spec.prompt, prompt):
            message = (
                f"sft `{stage.spec.name}` trains under `{prompt.name}` what `{parent.spec.name}`"
                f" sampled under `{parent.spec.prompt.name}`"
            )
            related = ((setting_span(parent, "prompt"), "sampled under this one"),)
            yield warning("W103", message, setting_span(stage, "prompt"), None, related)


def _against_training(stage: Stage, prompt: Prompt, trained: Stage) -> Iterator[Diagnostic]:
    spec = trained.spec
    if not isinstance(spec, Sft | Rl) or spec.prompt is None or same_prompt(spec.prompt, prompt):
        return
    message = (
        f"{stage.spec.kind} `{stage.spec.name}` asks under `{prompt.name}` a model that"
        f" `{spec.name}` trained under `{spec.prompt.name}`"
    )
    related = ((setting_span(trained, "prompt"), "trained under this one"),)
    yield warning("W103", message, setting_span(stage, "prompt"), None, related)
