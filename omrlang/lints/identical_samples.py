"""W119: several samples of one question are drawn without chance, so all are the same.

At temperature 0, or with `top_k = 1`, the second sample is the first one again: n times the price for no more rows, and an
average of n answers that is the answer of one.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Eval, Rl, Sample


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sample, Eval, Rl):
        n = spec.group if isinstance(spec, Rl) else spec.n
        key = "temperature" if spec.temperature == 0 else "top_k" if spec.top_k == 1 else None
        if n > 1 and key is not None:
            shown = f"{key} = {getattr(spec, key):g}"
            message = f"{spec.kind} `{spec.name}`: with `{shown}` all {n} answers to a question are the same"
            yield warning("W119", message, setting_span(stage, key))
