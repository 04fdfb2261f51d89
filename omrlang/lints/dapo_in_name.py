"""W121: DAPO without what makes it DAPO.

Seen in a published recipe: the paper describes dynamic sampling and a decoupled clip range, the script leaves the group
filter off and clips at 0.2 on both sides, and reports the result as DAPO's.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Rl
from omrlang.types import Dapo


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        if isinstance(spec.algorithm, Dapo):
            for lacking, hint in _lacking(spec.algorithm):
                message = f"rl `{spec.name}`: dapo with {lacking}"
                yield warning("W121", message, setting_span(stage, "algorithm"), hint)


def _lacking(algorithm: Dapo) -> Iterator[tuple[str, str]]:
    """What the paper has and the recipe has not, with what it says."""
    low, high = algorithm.clip
    if low == high:
        hint = "DAPO clips further up than down, 0.2 and 0.28 in arXiv 2503.14476"
        yield f"one clip range of {low:g} on both sides", hint
    if algorithm.refill is None:
        hint = "`refill = on_spread(reward)` draws others in their place (arXiv 2503.14476, section 3.2)"
        yield "groups without spread that nothing takes the place of", hint
