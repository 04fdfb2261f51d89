"""The word ``unpublished`` to a stand-in that nothing is ever run with; the stage keeps the setting's path."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from omrlang import syntax as s
from omrlang.check.context import FAILED, Context, Place
from omrlang.scope import Bound, look_up
from omrlang.types import Amount, Setting, construct

WORD = "unpublished"


def is_unpublished(bound: Bound) -> bool:
    """Whether an expression is the word, and nothing of that name is declared."""
    expr = bound.expr
    return isinstance(expr, s.Name) and expr.id == WORD and look_up(bound.scope, expr) is None


def note(ctx: Context, label: str) -> None:
    """Keep the setting's path, with the argument of a call that is meant."""
    is_part = label and label != ctx.path.rpartition(".")[2]
    path = f"{ctx.path}.{label}" if is_part else ctx.path
    if path not in ctx.unpublished:
        ctx.unpublished.append(path)


def stand_in(ctx: Context, bound: Bound, branches: list[Any], optional: bool, place: Place) -> Any:
    """A value of the right type, or FAILED where nobody could plan around one that is missing."""
    note(ctx, place.label)
    if optional:
        return None
    found = _value(branches[0], place.setting or Setting())
    if len(branches) > 1 and not _stands_alone(branches[0]):
        found = FAILED
    if found is FAILED:
        message = f"`{place.label}` cannot be unpublished: nothing else can be checked without it"
        return ctx.error("E301", message, bound.expr.span)
    return found


def _stands_alone(want: Any) -> bool:
    """A choice without an argument that is needed: as good as any other to stand in for all of them."""
    is_model = (
        isinstance(want, type) and issubclass(want, BaseModel) and "kind" in want.model_fields
    )
    return is_model and not any(info.is_required() for info in want.model_fields.values())


def _value(want: Any, setting: Setting) -> Any:
    if _stands_alone(want):
        return construct(want)
    if get_origin(want) is Literal:
        return get_args(want)[0]
    if get_origin(want) is tuple:
        parts = get_args(want)
        return () if parts[-1] is Ellipsis else tuple(_value(part, setting) for part in parts)
    if want is Amount:
        return construct(Amount, value=1.0, unit=setting.units[0])
    if want in (int, float):
        low = setting.ge if setting.ge is not None else 1
        value = max(low, 1) if setting.le is None else min(max(low, 1), setting.le)
        return want(value if setting.lt is None or value < setting.lt else low)
    return {bool: False, str: WORD}.get(want, FAILED)
