"""W115: what a model is trained on, taught by or started from was published, and nobody says under which licence.

A licence that forbids training, or commercial use, is found out after the model is trained, when it cannot be shipped.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl, Sample, Sft, Source
from omrlang.types import HfModel, Model


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, source in graph.of(Source):
        is_public = source.place.kind == "hf" and not source.benchmark
        if is_public and _is_unknown(source.licence):
            message = f"source `{source.name}`: the licence of the data is not known"
            hint = "`licence` says it"
            yield warning("W115", message, setting_span(stage, "licence"), hint)
    for stage, model in _models(graph):
        message = f"model `{model.name}`: the licence of the weights is not known"
        yield warning("W115", message, stage.span, "`licence` says it")


def _models(graph: Graph) -> Iterator[tuple[Stage, Model]]:
    """Models from the hub that no licence is known of, each at the first stage that teaches or starts with it."""
    seen: set[str] = set()
    for stage, spec in graph.of(Sample, Sft, Rl):
        model = spec.model
        if not isinstance(model, Model) or not isinstance(model.source, HfModel):
            continue
        if _is_unknown(model.licence) and model.name not in seen:
            seen.add(model.name)
            yield stage, model


def _is_unknown(licence: str | None) -> bool:
    return licence is None or licence.strip().lower() in ("", "unknown", "other", "none")
