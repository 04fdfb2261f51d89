"""A stage's specification becomes what it was declared with and what it refers to: settings, expressions, other stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omrlang.schema import Filter, Mix, Spec
from omrlang.types import (
    Ascending,
    Call,
    Clause,
    Descending,
    Enough,
    ExprNode,
    MixPart,
    Model,
    Near,
    Prompt,
    RowExpr,
    RowSets,
    Setting,
    TrainedModel,
    Watch,
)
from omrlang.walk import children


def declarations(spec: Spec) -> Iterator[tuple[str, Setting | Clause]]:
    """The stage's fields that a recipe can write, with how each was declared."""
    for name, info in type(spec).model_fields.items():
        for item in info.metadata:
            if isinstance(item, Setting | Clause):
                yield name, item


def references(spec: Spec) -> tuple[str, ...]:
    """Names of the stages that this one needs: rows first, then its model, then those in expressions; each once."""
    names: list[str] = []
    for _, declared, value in _values(spec):
        if isinstance(declared, Clause) and declared.word == "from":
            names += _rows_named(value)
    for _, _, value in _values(spec):
        match value:
            case TrainedModel(stage=stage):
                names.append(stage)
            case Watch(rows=RowSets(names=watched)):
                names += watched
            case _:
                pass
    for call in calls(spec):
        names += call.stages
        if isinstance(call.model, TrainedModel):
            names.append(call.model.stage)
    return tuple(dict.fromkeys(names))


def _values(spec: Spec) -> Iterator[tuple[str, Setting | Clause, Any]]:
    for name, declared in declarations(spec):
        yield name, declared, getattr(spec, name)


def _rows_named(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case tuple():
            return [item.rows if isinstance(item, MixPart) else str(item) for item in value]
        case _:
            return []


def expressions(spec: Spec) -> Iterator[RowExpr]:
    """Every row expression of a stage, that of its prompt among them."""
    for _, _, value in _values(spec):
        match value:
            case RowExpr():
                yield value
            case (
                Prompt(user=RowExpr() as found)
                | Ascending(by=found)
                | Descending(by=found)
                | Watch(score=RowExpr() as found)
                | Enough(of=RowExpr() as found)
            ):
                yield found
            case Near(columns=columns):
                yield from columns
            case dict():
                yield from (item for item in value.values() if isinstance(item, RowExpr))
            case _:
                pass


def calls(spec: Spec) -> Iterator[Call]:
    """Every call in every row expression of a stage."""
    for expression in expressions(spec):
        for node in nodes(expression.tree):
            if isinstance(node, Call):
                yield node


def named_models(spec: Spec) -> Iterator[Model]:
    """The models that are named by a stage itself: what it starts from, its encoders, and its judges."""
    model: Model | TrainedModel | None = getattr(spec, "model", None)
    if isinstance(model, Model):
        yield model
    if isinstance(spec, Filter | Mix) and isinstance(spec.unique, Near):
        yield from spec.unique.models
    for call in calls(spec):
        if isinstance(call.model, Model):
            yield call.model


def nodes(tree: ExprNode) -> Iterator[ExprNode]:
    """A tree's nodes, the root first."""
    yield tree
    for child in children(tree):
        yield from nodes(child)
