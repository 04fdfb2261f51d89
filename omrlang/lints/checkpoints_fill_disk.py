"""W110: the checkpoints that stay take a terabyte or more.

Seen in a published recipe: every 16 of 1,232 steps and all of them kept, 77 checkpoints of a 7B model, about 7.7 TB.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.estimate.shapes import shape_of
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl, Sft
from omrlang.types import Checkpoint

BYTES_A_PARAMETER = 12
"""fp32 weights and two fp32 moments of AdamW, without which a run cannot go on."""
MOST_BYTES = 1e12


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft, Rl):
        root = graph.root(spec)
        shape = shape_of(root) if root is not None else None
        if spec.checkpoint is None or shape is None:
            continue
        number = _kept(spec.checkpoint, graph.num_steps(spec))
        each = shape.num_params * BYTES_A_PARAMETER
        if number * each >= MOST_BYTES:
            message = (
                f"{spec.kind} `{spec.name}` keeps {number} checkpoints of about {each / 1e9:,.0f} GB,"
                f" {number * each / 1e12:.1f} TB in all"
            )
            hint = "`keep` says how many of the newest stay"
            yield warning("W110", message, setting_span(stage, "checkpoint.keep"), hint)


def _kept(checkpoint: Checkpoint, steps: tuple[float, float] | None) -> int:
    """As many as stay when the run is over, or as stay of one whose length is not known."""
    if steps is None:
        return checkpoint.keep
    return min(checkpoint.keep, int(steps[0] // checkpoint.every))
