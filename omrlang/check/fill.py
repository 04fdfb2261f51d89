"""A block's settings to the fields of a schema model: unknown and missing keys, groups, exactly-one-of, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omrlang.check.annotations import branches_of, kind_word, setting_of
from omrlang.check.conform import conform
from omrlang.check.context import FAILED, Context, Failed, Place
from omrlang.diagnostics import did_you_mean, listed, nearest
from omrlang.functions import COLUMNS
from omrlang.hir import Layer, Provenance
from omrlang.scope import Bound, Slot
from omrlang.source import Span
from omrlang.types import (
    Amount,
    Clause,
    Enough,
    Expect,
    Gpu,
    Hardware,
    Model,
    Prompt,
    Range,
    RowExpr,
    RowSets,
    construct,
)

NOT_MAPPED = ("id", "parent", "content", "source", "sample_index", "num_tokens", "finish")
NO_BRACES = (RowExpr, RowSets, Amount, Range, Expect, Enough, Prompt, Gpu, Hardware, Model)
"""Values that are written as an expression or a name, so that braces after their key mean nothing."""
_LAYERS: tuple[Layer, ...] = ("default", "stdlib", "file", "amend", "sweep", "set")


def keys_of(model: type[BaseModel], without: tuple[str, ...] = ()) -> dict[str, str]:
    """The settings of a model: key in a recipe to field."""
    found = {}
    for name, info in model.model_fields.items():
        is_clause = any(isinstance(item, Clause) for item in info.metadata)
        if name in ("kind", *without) or is_clause:
            continue
        setting = setting_of(info.metadata)
        found[(setting.key if setting and setting.key else name)] = name
    return found


def fill(
    ctx: Context,
    model: type[BaseModel],
    slots: dict[str, Slot],
    owner: str,
    span: Span,
    without: tuple[str, ...] = (),
    prefix: str = "",
    base: BaseModel | Failed | None = None,
) -> dict[str, Any]:
    """The given fields of ``model`` with their values (FAILED where one is wrong); what is missing is reported.

    ``owner`` is whose settings they are, in words. With ``base`` nothing is missing: it has the rest, also
    where it was refused.
    """
    keys = keys_of(model, without)
    slots = _one_of(ctx, model, slots, keys, owner, span, required=base is None)
    values: dict[str, Any] = {}
    for key, slot in slots.items():
        if key not in keys:
            _unknown_key(ctx, key, slot, keys, owner)
            meant = nearest(key, keys)
            if meant is not None and meant not in slots:
                values[keys[meant]] = FAILED  # misspelt, so not missing as well
            continue
        name, info = keys[key], model.model_fields[keys[key]]
        if slot.is_unset and not slot.group:
            values |= _unset(ctx, info, slot, name, owner, base)
            continue
        values[name] = _slot_value(ctx, info, slot, key, f"{prefix}{key}")
    if base is None:
        _missing(ctx, model, keys, values, owner, span)
    return values


def _unknown_key(ctx: Context, key: str, slot: Slot, keys: dict[str, str], owner: str) -> None:
    if id(slot.key) in ctx.refused_keys:
        return
    ctx.refused_keys.add(id(slot.key))
    if key in ("from", "with", "on"):
        hint = f"`{key}` stands before the brace"
    else:
        hint = did_you_mean(key, keys, "settings are") or ""
    ctx.error("E203", f"{owner} has no setting `{key}`", slot.key.span, hint or None)


def _unset(
    ctx: Context,
    info: FieldInfo,
    slot: Slot,
    name: str,
    owner: str,
    base: BaseModel | Failed | None,
) -> dict[str, Any]:
    """``key = default``: on top of a value the field's own default, else nothing is given."""
    if base is None:
        return {}
    if info.is_required():
        message = f"{owner} lacks `{slot.key.id}`"
        return {name: ctx.error("E302", message, slot.key.span, "it has no default")}
    return {name: info.get_default(call_default_factory=True)}


def _missing(
    ctx: Context,
    model: type[BaseModel],
    keys: dict[str, str],
    values: dict[str, Any],
    owner: str,
    span: Span,
) -> None:
    missing = []
    for key, name in keys.items():
        if model.model_fields[name].is_required() and name not in values:
            missing.append(key)
            values[name] = FAILED
    if missing:
        docs = setting_of(model.model_fields[keys[missing[0]]].metadata)
        hint = f"{missing[0]}: {docs.doc}" if docs and docs.doc else None
        names = listed([f"`{key}`" for key in missing], "and")
        ctx.error("E302", f"{owner} lacks {names}", span, hint)


def _one_of(
    ctx: Context,
    model: type[BaseModel],
    slots: dict[str, Slot],
    keys: dict[str, str],
    owner: str,
    span: Span,
    *,
    required: bool,
) -> dict[str, Slot]:
    """Of each group exactly one stays: that of the highest layer, if a lower one gave another."""
    groups: dict[str, list[str]] = {}
    for key, name in keys.items():
        setting = setting_of(model.model_fields[name].metadata)
        if setting and setting.one_of:
            groups.setdefault(setting.one_of, []).append(key)
    for members in groups.values():
        given = [key for key in members if key in slots and slots[key].given is not None]
        shown = listed([f"`{key}`" for key in members], "and")
        if not given and required:
            ctx.error("E306", f"{owner} needs exactly one of {shown}", span)
        if len(given) > 1:
            slots = _highest(ctx, slots, given, f"{owner} takes only one of {shown}")
    return slots


def _highest(
    ctx: Context, slots: dict[str, Slot], given: list[str], message: str
) -> dict[str, Slot]:
    rank = {key: (_LAYERS.index(_value_of(slots[key]).layer), slots[key].height) for key in given}
    top = [key for key in given if rank[key] == max(rank.values())]
    if len(top) > 1:
        first, second = slots[top[0]].key.span, slots[top[1]].key.span
        ctx.error("E306", message, second, None, ((first, "the other one"),))
    return {key: slot for key, slot in slots.items() if key not in given or key == top[0]}


def _value_of(slot: Slot) -> Bound:
    assert slot.value is not None, "only slots with a value come here"
    return slot.value


# ---- one setting -------------------------------------------------------------------------------


def _slot_value(ctx: Context, info: FieldInfo, slot: Slot, key: str, path: str) -> Any:
    want: Any = info.annotation
    if get_origin(want) is dict:
        return _columns(ctx, slot, key, get_args(want)[1])
    place = Place(key, setting_of(info.metadata))
    value: Any = None
    if (given := slot.given) is not None:
        ctx.provenance[path], ctx.path = Provenance(given.layer, given.expr.span), path
        value = conform(ctx, given, want, place)
        if not slot.group or value is FAILED:
            return value
    models = branches_of(want) if value is None else (type(value),)
    groups = [model for model in models if _has_parts(model)]
    if len(groups) != 1:
        return ctx.error("E301", f"`{key}` takes a value, `{key} = …`, not braces", slot.key.span)
    return _group(ctx, groups[0], slot, key, path, value)


def _has_parts(model: Any) -> bool:
    """Whether braces can set the parts of such a value."""
    return isinstance(model, type) and issubclass(model, BaseModel) and model not in NO_BRACES


def _group(
    ctx: Context, model: type[BaseModel], slot: Slot, key: str, path: str, base: BaseModel | None
) -> Any:
    """``checkpoint { … }``; on top of a value, its named parts."""
    label = kind_word(model) if "kind" in model.model_fields else key
    values = fill(ctx, model, slot.group, f"`{label}`", slot.key.span, (), f"{path}.", base)
    if FAILED in values.values() or _would_lack(model, values, base):
        return FAILED
    return base.model_copy(update=values) if base is not None else construct(model, **values)


def _would_lack(model: type[BaseModel], values: dict[str, Any], base: BaseModel | None) -> bool:
    required = {name for name, info in model.model_fields.items() if info.is_required()}
    return base is None and not required <= values.keys()


def _columns(ctx: Context, slot: Slot, key: str, want: Any) -> Any:
    """``columns { answer = Answer, extra.level = Level }``."""
    if (given := slot.given) is not None:
        return ctx.error("E301", f"`{key}` takes braces, `{key} {{ … }}`", given.expr.span)
    found: dict[str, Any] = {}
    for name, inner in _mapped(slot):
        if (given := inner.given) is not None:
            ctx.provenance[f"{key}.{name}"] = Provenance(given.layer, given.expr.span)
        _column(ctx, name, inner, want, found)
    return FAILED if FAILED in found.values() else found


def _mapped(slot: Slot) -> Iterator[tuple[str, Slot]]:
    """The columns in the braces, those of `extra { … }` and `extra.NAME` by their whole name."""
    for name, inner in slot.group.items():
        if name == "extra" and inner.group:
            yield from ((f"extra.{part}", deep) for part, deep in inner.group.items())
        if name != "extra" or inner.value is not None:
            yield name, inner


def _column(ctx: Context, name: str, slot: Slot, want: Any, found: dict[str, Any]) -> None:
    known = [column for column in COLUMNS if column not in NOT_MAPPED]
    if not name.startswith("extra.") and name not in known:
        hint = "`label` says what the column `source` holds" if name == "source" else None
        hint = hint or did_you_mean(name, [*known, "extra"], "columns are")
        message = f"a source has no column `{name}` to map"
        hint = "`extra.NAME` takes any other" if name == "extra" else hint
        found[name] = ctx.error(
            "E209", message, slot.key.span, hint or "`extra.NAME` takes any other"
        )
        return
    if slot.is_unset:
        return
    if slot.value is None:
        found[name] = ctx.error("E301", f"`{name}` takes an expression", slot.key.span)
        return
    found[name] = conform(ctx, slot.value, want, Place(name))
    type_ = COLUMNS.get(name, "text")
    if found[name] is not FAILED and found[name].type not in (type_, "any"):
        message = f"the column `{name}` holds {_WORDS[type_]}, this is {_WORDS[found[name].type]}"
        hint = "`text(…)` makes a text of it" if type_ == "text" else None
        found[name] = ctx.error("E301", message, slot.value.expr.span, hint)


_WORDS = {"text": "a text", "list": "a list", "number": "a number", "bool": "a condition"}
