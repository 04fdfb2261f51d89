"""W120: a reward looks at nothing that a model wrote, so every rollout of a group gets the same and nothing is learned."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, asks_response, setting_span, warning
from omrlang.schema import Rl


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        if not asks_response(spec.reward.tree):
            message = f"rl `{spec.name}`: all rollouts of a prompt get the same reward"
            hint = "a reward asks a verifier, or looks at a column such as `response`"
            yield warning("W120", message, setting_span(stage, "reward"), hint)
