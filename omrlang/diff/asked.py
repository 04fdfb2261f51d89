"""An expression that reads the same and asks another model becomes the field of the model that changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omrlang.changes import Moved
from omrlang.diff.pairs import Pair
from omrlang.plan import PlanStage
from omrlang.references import nodes
from omrlang.shown import shown
from omrlang.types import Call, Model, RowExpr

NO_CONTENT = frozenset({"name", "kind", "engine", "shape", "licence"})
"""Fields of a model that change no answer."""


def other_model(pair: Pair, moved: Moved) -> tuple[str, str, str] | None:
    """``referee.id`` with its old and its new value: of the first model of the expression that is another one by the
    same name. None where it is something else that moved."""
    if moved.old is None or moved.new is None or moved.old.shown != moved.new.shown:
        return None
    old, new = _models(pair.a, moved.path), _models(pair.b, moved.path)
    for name in (name for name in new if name in old):
        was, now = old[name], new[name]
        differ = [
            field for field in dict.fromkeys([*now, *was]) if was.get(field) != now.get(field)
        ]
        if differ:
            field = differ[0]
            return f"{name}.{field}", shown(was.get(field)), shown(now.get(field))
    return None


def _models(stage: PlanStage | None, path: str) -> dict[str, dict[str, Any]]:
    """By name what a model is, for each that the expression asks."""
    expression = getattr(stage.spec, path, None) if stage is not None else None
    if not isinstance(expression, RowExpr):
        return {}
    calls = (node for node in nodes(expression.tree) if isinstance(node, Call))
    return {
        call.model.name: dict(_content(call.model))
        for call in calls
        if isinstance(call.model, Model)
    }


def _content(model: Model) -> Iterator[tuple[str, Any]]:
    fields: dict[str, Any] = model.model_dump(exclude=set(NO_CONTENT))
    yield from fields.pop("source").items()
    yield from fields.items()
