"""W110: the checkpoints that stay take a terabyte or more.

Seen in a published recipe: every 16 of 1,232 steps and all of them kept, 76 checkpoints of a 7B model before the last, about 7.6 TB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.estimate.disk import checkpoint_bytes, kept
from omrlang.estimate.shapes import shape_of
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl, Sft
from omrlang.types import Checkpoint

MOST_BYTES = 1e12
SOON = 1_000
"""Steps within which a run of unknown length that keeps everything must not come to that."""


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Sft, Rl):
        root = graph.root(spec)
        shape = shape_of(root) if root is not None else None
        if spec.checkpoint is None or shape is None:
            continue
        found = _found(spec.checkpoint, graph.num_steps(spec), checkpoint_bytes(spec, shape))
        if found:
            hint = "`keep` says how many of the newest stay"
            message = f"{spec.kind} `{spec.name}` keeps {found}"
            yield warning("W110", message, setting_span(stage, "checkpoint.keep"), hint)


def _found(checkpoint: Checkpoint, steps: tuple[float, float] | None, each: float) -> str:
    """What stays when the run is over, or of one whose length is not known; empty where that is little."""
    size = f"of about {each / 1e9:,.0f} GB"
    if steps is None and checkpoint.keep == "all":
        until = math.ceil(MOST_BYTES / each) * checkpoint.every
        return f"all checkpoints, {size}, 1 TB after {until:,} steps" if until <= SOON else ""
    number = checkpoint.keep if steps is None else kept(checkpoint, steps[0])
    assert number != "all", "of a run of known length a number stays"
    total = number * each
    return (
        f"{number} checkpoints {size}, {total / 1e12:.1f} TB in all" if total >= MOST_BYTES else ""
    )
