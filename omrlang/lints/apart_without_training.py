"""W131: an engine is to be apart where no training is that it could be apart from.

`apart` gives the engine of rollouts a process and GPUs beside the trainer's. A stage that only writes has its GPUs to itself
anyway, so there it says nothing; whoever wrote it thinks of something else.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Stage
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Eval, Sample
from omrlang.types import Vllm


def lint(graph: Graph) -> Iterator[Diagnostic]:
    writing: list[tuple[Stage, Sample | Eval]] = [*graph.of(Sample), *graph.of(Eval)]
    for stage, spec in writing:
        if isinstance(spec.engine, Vllm) and spec.engine.apart:
            message = (
                f"{spec.kind} `{spec.name}` trains nothing that its engine could be apart from"
            )
            hint = "`apart` is of the rollouts of `rl`; here it changes nothing"
            yield warning("W131", message, setting_span(stage, "engine"), hint)
