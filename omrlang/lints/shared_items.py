"""W106: a training source and an evaluation set hold items of one published data set.

Seen in a published recipe: no decontamination, while the training sets hold ChartQA, GeoQA+ or TQA and MathVista was put
together from those too. What a set is made of is its `contains`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from omrlang.diagnostics import Diagnostic, listed
from omrlang.hir import Stage
from omrlang.lints.places import Graph, looked_at, warning
from omrlang.schema import Eval, Source
from omrlang.types import HfData


def lint(graph: Graph) -> Iterator[Diagnostic]:
    said: set[tuple[str, str]] = set()
    for stage, _ in graph.of(Eval):
        tested = [source for _, source in graph.sources(stage) if source.contains]
        for trained in graph.trainings(stage) if tested else ():
            cleaned = _looked_for(graph, trained)
            for (_, source), benchmark in product(graph.sources(trained), tested):
                pair = source.name, benchmark.name
                common = _common(source, benchmark)
                if common and benchmark.name not in cleaned and pair not in said:
                    said.add(pair)
                    yield _warning(stage, trained, pair, common)


def _common(source: Source, benchmark: Source) -> list[str]:
    """What both hold. That a set is trained on and tested on itself is another mistake, W104, and its splits are apart."""
    one, other = source.place, benchmark.place
    if one == other or (
        isinstance(one, HfData) and isinstance(other, HfData) and one.id == other.id
    ):
        return []
    return [name for name in source.contains if name in benchmark.contains]


def _looked_for(graph: Graph, trained: Stage) -> set[str]:
    """The evaluation sets whose items some stage on the way to a training drops."""
    return {name for parent in graph.ancestors(trained) for name in looked_at(parent, "seen_in")}


def _warning(
    evaluation: Stage, trained: Stage, pair: tuple[str, str], common: list[str]
) -> Diagnostic:
    source, benchmark = pair
    message = (
        f"eval `{evaluation.spec.name}` tests on `{benchmark}`, `{trained.spec.name}` is trained on"
        f" `{source}`: both hold items of {listed(common, 'and')}"
    )
    hint = f"`not seen_in({benchmark})` in a filter before the training drops what they share"
    return warning("W106", message, evaluation.span, hint)
