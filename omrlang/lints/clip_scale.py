"""W102: GSPO clips a ratio averaged over the sequence, some hundred times nearer to 1 than GRPO's token ratios."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl
from omrlang.types import Gspo

GSPO_MOST = 0.02
TOKEN_LEAST = 0.01


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        is_gspo = isinstance(spec.algorithm, Gspo)
        high = max(spec.algorithm.clip)
        if is_gspo and high > GSPO_MOST:
            other, usual = "grpo", "3e-4 to 4e-4"
        elif not is_gspo and high < TOKEN_LEAST:
            other, usual = "gspo", "0.2 to 0.28"
        else:
            continue
        message = f"rl `{spec.name}`: a clip range of {high:g} has the scale of {other}"
        hint = f"usual for {spec.algorithm.kind} is {usual}"
        yield warning("W102", message, setting_span(stage, "algorithm"), hint)
