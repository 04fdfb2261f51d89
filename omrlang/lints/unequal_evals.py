"""W116: models are compared on the same rows under unequal decoding.

Another temperature, another limit or another number of answers moves a score as far as a training does; a value that one
side leaves to its default is the usual way there.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic, listed
from omrlang.hir import Stage
from omrlang.lints.places import Graph, setting_span, warning
from omrlang.schema import Eval
from omrlang.settle import settle

TERMS = (
    *("temperature", "top_p", "top_k", "max_tokens", "min_pixels", "max_pixels", "n", "score"),
    "aggregate",
)


def lint(graph: Graph) -> Iterator[Diagnostic]:
    first: dict[str, tuple[Stage, Eval]] = {}
    for stage, spec in graph.of(Eval):
        others = {id(other): (base, other) for base, other in _earlier(first, stage, spec)}
        for base, other in others.values():
            differ = [key for key in TERMS if _value(spec, key) != _value(other, key)]
            if differ and spec.model != other.model:
                yield _warning(stage, base, differ)


def _earlier(
    first: dict[str, tuple[Stage, Eval]], stage: Stage, spec: Eval
) -> Iterator[tuple[Stage, Eval]]:
    """The first evaluations on the rows of this one."""
    for name in spec.rows:
        found = first.setdefault(name, (stage, spec))
        if found[1] is not spec:
            yield found


def _value(spec: Eval, key: str) -> object:
    value = getattr(settle(spec), key)
    return value.tree if key == "score" else value


def _warning(stage: Stage, base: Stage, differ: list[str]) -> Diagnostic:
    message = (
        f"eval `{stage.spec.name}` and `{base.spec.name}` ask two models the same questions and"
        f" differ in {listed([f'`{key}`' for key in differ], 'and')}"
    )
    related = ((setting_span(base, differ[0]), "the other one"),)
    return warning("W116", message, setting_span(stage, differ[0]), None, related)
