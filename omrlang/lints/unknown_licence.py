"""W115: what a model is trained on, taught by or started from was published, and nobody says under which licence.

A licence that forbids training, or commercial use, is found out after the model is trained, when it cannot be shipped.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic, listed
from omrlang.hir import Stage
from omrlang.lints.places import Graph, warning
from omrlang.schema import Rl, Sample, Sft
from omrlang.types import HfModel, Model


def lint(graph: Graph) -> Iterator[Diagnostic]:
    said: set[str] = set()
    for stage, spec in graph.of(Sample, Sft, Rl):
        found = [name for name in _of_data(graph, stage) if not isinstance(spec, Sample)]
        found += _of_weights(spec)
        if names := [f"`{name}`" for name in dict.fromkeys(found) if name not in said]:
            said.update(found)
            message = (
                f"{spec.kind} `{spec.name}` uses what is published under a licence that is not known:"
                f" {listed(names, 'and')}"
            )
            yield warning("W115", message, stage.span, "`licence = …` of a source or model says it")


def _of_data(graph: Graph, stage: Stage) -> Iterator[str]:
    """The sources from a hub that a stage's rows come from and that have no licence."""
    for _, source in graph.sources(stage):
        if source.place.kind == "hf" and _is_unknown(source.licence):
            yield source.name


def _of_weights(spec: Sample | Sft | Rl) -> Iterator[str]:
    model = spec.model
    if not isinstance(model, Model) or not isinstance(model.source, HfModel):
        return
    if _is_unknown(model.licence):
        yield model.name


def _is_unknown(licence: str | None) -> bool:
    return licence is None or licence.strip().lower() in ("", "unknown", "other", "none")
