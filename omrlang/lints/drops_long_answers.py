"""W132: what a step leaves unfinished is dropped, so that short answers are learned from more often than long ones.

Of the groups under way those end first whose longest answer is short. A batch made of them has learned that before any reward
is looked at; on hard questions, whose answers are long, it hardly learns at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl
from omrlang.types import Drop


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        if spec.oversample is not None and isinstance(spec.unfinished, Drop):
            message = f"rl `{spec.name}` learns from what ends first and drops the rest: short answers are preferred"
            hint = "`unfinished = continue()` draws on in the next step, and learns from all"
            yield warning("W132", message, setting_span(stage, "unfinished"), hint)
