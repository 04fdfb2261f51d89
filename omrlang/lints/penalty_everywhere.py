"""W123: the soft penalty for long responses begins with the first token, because its buffer is as long as the limit."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl
from omrlang.types import Dapo


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        overlong = spec.algorithm.overlong if isinstance(spec.algorithm, Dapo) else None
        if overlong is not None and overlong.buffer >= spec.max_response:
            message = (
                f"rl `{spec.name}`: a buffer of {overlong.buffer:,} tokens before a limit of"
                f" {spec.max_response:,} penalises every response"
            )
            hint = "arXiv 2503.14476 has 4,096 tokens before 20,480"
            yield warning("W123", message, setting_span(stage, "algorithm"), hint)
