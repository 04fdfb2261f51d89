"""W111: a length limit lies below what the model has learned, or is taught, to write.

Long traces are those of hard problems. A limit below them drops just these rows from training, and in an evaluation it
scores a model that would have answered as wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Eval, Rl, Sample, Sft, Source


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft, Rl, Eval):
        key, cap = _limit(spec)
        found = _taught(graph, stage) if isinstance(spec, Sft) else _learned(graph, stage)
        longest, whose = max(found, key=lambda pair: pair[0], default=(0.0, ""))
        if longest > cap:
            message = (
                f"{spec.kind} `{spec.name}`: `{key}` is {cap:,} tokens, and {whose} are up to"
                f" {longest:,.0f} tokens long"
            )
            yield warning("W111", message, setting_span(stage, key))


def _limit(spec: Sft | Rl | Eval) -> tuple[str, int]:
    match spec:
        case Sft(pack=cap):
            return "pack", cap
        case Rl(max_response=cap):
            return "max_response", cap
        case Eval(max_tokens=cap):
            return "max_tokens", cap


def _taught(graph: Graph, stage: Stage) -> Iterator[tuple[float, str]]:
    """The longest responses that a cold start's rows may have, and whose they are."""
    for parent in graph.ancestors(stage):
        spec = parent.spec
        if isinstance(spec, Sample):
            yield spec.max_tokens, f"the traces of `{spec.name}`"
        elif isinstance(spec, Source) and spec.assume.response is not None:
            yield spec.assume.response.hi, f"the responses of `{spec.name}`"


def _learned(graph: Graph, stage: Stage) -> Iterator[tuple[float, str]]:
    """What a model was trained to write: rollouts up to their limit, traces as long as they were found to be."""
    for trained in graph.trainings(stage):
        if isinstance(trained.spec, Rl) and isinstance(stage.spec, Eval):
            yield trained.spec.max_response, f"the rollouts of `{trained.spec.name}`"
        for parent in graph.ancestors(trained) if isinstance(trained.spec, Sft) else ():
            if length := _length(graph, parent):
                yield length, f"the responses of `{parent.spec.name}`"


def _length(graph: Graph, stage: Stage) -> float | None:
    """Declared, or measured when the stage ran; a guess is no reason to warn."""
    spec = stage.spec
    if not isinstance(spec, Sample | Source):
        return None
    if spec.assume.response is not None:
        return spec.assume.response.hi
    costs = graph.costs.get(spec.name)
    found = costs.extra.get("tokens_per_response") if costs is not None else None
    return found.hi if found is not None and found.origin in ("measured", "calibrated") else None
