"""W101: with one optimiser step per rollout batch, by the weights that drew it, every importance ratio is 1: no clip range can act.

Seen in a published recipe: clip ranges tuned to four digits beside `mini-batch = batch`.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl
from omrlang.settle import ratio_is_one


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        if ratio_is_one(spec):
            name, dual = spec.algorithm.kind, spec.algorithm.dual_clip
            what = f"the clip range of {name} never acts"
            if dual is not None:
                what = f"the clip range and the dual clip of {name} never act"
            message = f"rl `{spec.name}`: {what}"
            hint = "there is one update per rollout batch, so every ratio is 1; a smaller `minibatch` gives several"
            yield warning("W101", message, setting_span(stage, "algorithm"), hint)
