"""W109: a model is shown images of another size than it was trained on.

Seen in a published recipe: the cold start shrinks images to 4.19 megapixels, RL and the evaluation leave the budget to a
processor's default, so a change of a library changes what the model sees.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Eval, Rl, Sft


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft, Rl, Eval):
        before = next(graph.trainings(stage), None)
        if before is None or not (graph.sees_images(stage) and graph.sees_images(before)):
            continue
        for key in ("min_pixels", "max_pixels"):
            mine, theirs = getattr(spec, key), getattr(before.spec, key)
            if mine != theirs:
                yield _warning(stage, before, key, mine, theirs)


def _warning(
    stage: Stage, before: Stage, key: str, mine: int | None, theirs: int | None
) -> Diagnostic:
    message = (
        f"{stage.spec.kind} `{stage.spec.name}` has {_shown(key, mine)}, its model was trained by"
        f" `{before.spec.name}` with {_shown(key, theirs)}"
    )
    related = ((setting_span(before, key), "trained with this"),)
    return warning("W109", message, setting_span(stage, key), None, related)


def _shown(key: str, value: int | None) -> str:
    return f"no `{key}`" if value is None else f"`{key} = {value:_}`"
