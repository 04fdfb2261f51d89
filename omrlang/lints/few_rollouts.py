"""W117: a group has so few rollouts that its mean and spread say little about the question.

The advantage of a rollout is its reward over the group's mean and spread. Of two that differ it is always the same number,
however far they lie apart. Published recipes take 8 to 64.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl

FEW = 4


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        if spec.group < FEW:
            message = f"rl `{spec.name}`: {spec.group} rollouts a prompt are few to compare"
            hint = "published recipes take 8 to 64"
            yield warning("W117", message, setting_span(stage, "group"), hint)
