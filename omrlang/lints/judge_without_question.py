"""W112: a judge is shown an answer and the truth, and not what was asked.

Seen in a published recipe: a step that dropped duplicates dropped the column with the question too, so the judge of the RL
stage compared "4" with "B" and could not know that B was 4.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, judges, setting_span, verifies, warning
from omrlang.types import Call, Lit, construct


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage in graph.stages:
        key, expr = verifies(stage)
        if expr is not None and any(_blind(call) for call in judges(expr.tree)):
            message = (
                f"the judge of {stage.spec.kind} `{stage.spec.name}` does not see the question"
            )
            hint = "`question = true` is the default"
            yield warning("W112", message, setting_span(stage, key), hint)


def _blind(judge: Call) -> bool:
    return dict(judge.named).get("question") == construct(Lit, value=False)
