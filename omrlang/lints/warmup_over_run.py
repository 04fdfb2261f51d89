"""W118: the learning rate warms up for as long as the run lasts, or longer, and never reaches its peak."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl, Sft
from omrlang.types import Amount


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft, Rl):
        warmup = spec.lr.warmup
        _, most = graph.num_steps(spec) or (None, None)
        if _is_over(warmup, most):
            shown = "100%" if warmup.unit == "fraction" else f"{warmup.value:,.0f} steps"
            run = "" if most is None else f" of {most:,.0f}"
            message = (
                f"{spec.kind} `{spec.name}` warms up for {shown}{run}: `lr` never stays at its peak"
            )
            yield warning("W118", message, setting_span(stage, "lr"))


def _is_over(warmup: Amount, steps: float | None) -> bool:
    if warmup.unit == "fraction":
        return warmup.value >= 1
    return steps is not None and warmup.value >= max(steps, 1)
