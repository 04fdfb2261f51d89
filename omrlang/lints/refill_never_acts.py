"""W129: dynamic sampling has no prompt to spare: its rounds together are no larger than the batch.

Then nothing can take the place of a group without spread, and the first such group ends the run.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl
from omrlang.settle import num_devices, settled_amount
from omrlang.types import Dapo


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        refill = spec.algorithm.refill if isinstance(spec.algorithm, Dapo) else None
        if refill is None:
            continue
        batch = settled_amount(spec.batch, num_devices(spec)).value
        each = refill.generate.value if refill.generate is not None else batch
        if each * refill.rounds <= batch:
            rounds = f"{refill.rounds} round{'s' * (refill.rounds > 1)} of {each:,.0f} prompts"
            message = f"rl `{spec.name}`: `refill` has {rounds} for a batch of {batch:,.0f}"
            hint = "the first group without spread would end the run; more `rounds`, or a larger `generate`"
            yield warning("W129", message, setting_span(stage, "algorithm"), hint)
