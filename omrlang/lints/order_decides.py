"""W107: of the rows that two parts of a mix share, the order of the parts decides whose are dropped.

Seen in a published recipe: duplicates are dropped from the subset that is named first, and the one that is half contained
in another loses 70% of its rows. With another order the shares of the mix are others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from omrlang.diagnostics import Diagnostic, listed
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Mix


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Mix):
        if spec.unique != "exact":
            continue  # of near duplicates the content decides who stays
        for one, other in combinations([part.rows for part in spec.parts], 2):
            if common := sorted(graph.published[one] & graph.published[other]):
                message = (
                    f"mix `{spec.name}`: whether `{one}` or `{other}` loses the items of"
                    f" {listed(common, 'and')} that both hold hangs on the order of the parts"
                )
                hint = "the part that stands first keeps them"
                yield warning("W107", message, setting_span(stage, "unique"), hint)
