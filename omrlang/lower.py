"""A checked recipe becomes its stages in order, each with its parents, its pinned revision and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from omrlang.fingerprint import fingerprint
from omrlang.hir import Recipe, Stage
from omrlang.pins import Pin, Pins
from omrlang.references import expressions, named_models, nodes, references
from omrlang.schema import Source, Spec
from omrlang.types import Col


@dataclass(frozen=True, slots=True)
class Lowered:
    """``decided`` is the specification that was fingerprinted (a source's label filled in where it is read).

    ``pins`` are what the stage takes from outside: a source's place, the weights that it starts from or asks.
    """

    stage: Stage
    decided: Spec
    fingerprint: str
    parents: tuple[str, ...]
    revision: str | None
    pins: tuple[Pin, ...]

    @property
    def spec(self) -> Spec:
        return self.stage.spec

    @property
    def name(self) -> str:
        return self.stage.spec.name


def lower(recipe: Recipe, pins: Pins) -> tuple[Lowered, ...]:
    """The stages of the recipe in its order, in which each stands after those that it names."""
    labels_read = _reads_label(recipe)
    fingerprints: dict[str, str] = {}
    found = []
    for stage in recipe.stages:
        decided = _with_label(stage.spec) if labels_read else stage.spec
        lowered = _lower_stage(stage, decided, pins, fingerprints)
        fingerprints[stage.spec.name] = lowered.fingerprint
        found.append(lowered)
    return tuple(found)


def _lower_stage(
    stage: Stage, decided: Spec, pins: Pins, fingerprints: Mapping[str, str]
) -> Lowered:
    parents = references(stage.spec)
    used = tuple(_pins(stage.spec, pins))
    revision = _revision(used)
    mark = fingerprint(decided, {name: fingerprints[name] for name in parents}, revision)
    return Lowered(stage, decided, mark, parents, revision, used)


def _pins(spec: Spec, pins: Pins) -> Iterator[Pin]:
    if isinstance(spec, Source) and (pin := pins.place(spec.place)) is not None:
        yield pin
    for model in named_models(spec):
        if (pin := pins.model(model)) is not None:
            yield pin


def _revision(pins: tuple[Pin, ...]) -> str | None:
    """One revision stays as it is; several are hashed together; one that could not be known leaves it open."""
    if any(pin.revision is None and pin.problem for pin in pins):
        return None
    known = [pin.revision for pin in pins if pin.revision is not None]
    if len(known) <= 1:
        return known[0] if known else None
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


def _reads_label(recipe: Recipe) -> bool:
    """Whether any expression looks at the column ``source``: only then does a source's name decide a result."""
    trees = (expression.tree for stage in recipe.stages for expression in expressions(stage.spec))
    return any(
        isinstance(node, Col) and node.name == "source" for tree in trees for node in nodes(tree)
    )


def _with_label(spec: Spec) -> Spec:
    """The default label is the source's name (in a source itself, a column ``source`` is a raw one)."""
    if isinstance(spec, Source) and spec.label is None:
        return spec.model_copy(update={"label": spec.name})
    return spec
