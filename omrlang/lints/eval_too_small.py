"""W122: an evaluation has so few answers that chance alone moves its score by ten points.

Of N answers, each right or wrong, the 95% interval is up to 98 / sqrt(N) points to either side: 18 for the 30 problems of an
AIME. Most of what is published as a gain is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from omrlang.diagnostics import Diagnostic
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Eval

POINTS = 10


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Eval):
        for name in spec.rows if spec.n == 1 else ():
            rows = graph.num_rows(name)
            points = 98 / sqrt(rows) if rows else 0
            if points > POINTS:
                message = (
                    f"eval `{spec.name}` has {rows:,.0f} answers on `{name}`: its score is known to"
                    f" {points:.0f} points at best"
                )
                hint = "`n = 8` at a temperature over 0 averages several answers to each question"
                yield warning("W122", message, setting_span(stage, "n"), hint)
