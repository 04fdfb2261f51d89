"""A kind and a dotted key become how that setting is declared: the schema, as an editor and the reference ask it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omrlang.check import Limits
from omrlang.check.annotations import branches_of, kind_word, or_from_env, setting_of
from omrlang.check.fill import NO_BRACES, NOT_MAPPED
from omrlang.check.things import MODELS
from omrlang.functions import COLUMNS
from omrlang.schema import KINDS
from omrlang.scope import STAGES
from omrlang.types import (
    Clause,
    Enough,
    Model,
    RowExpr,
    Setting,
    TrainedModel,
)

_FROM_BASE = ("kind", "name", "source", "folder", "files", "code")
"""What a declaration says before its braces, and what is found out from that."""


Keys: TypeAlias = "Mapping[str, Key]"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, clause or argument: what it is called in a recipe and how it is declared."""

    name: str
    annotation: Any
    setting: Setting
    required: bool
    default: object = None
    is_setting: bool = True

    @property
    def several(self) -> bool:
        """Whether a call's arguments without a name all belong here."""
        return bool(self.annotation == tuple[RowExpr, ...])

    @property
    def branches(self) -> list[Any]:
        """The types of its value, without none."""
        return [
            branch for branch in branches_of(_plain(self.annotation)) if branch is not type(None)
        ]

    @property
    def over_rows(self) -> bool:
        """Whether an expression over the row stands in it, or in its brackets."""
        return RowExpr in self.branches or Enough in self.branches

    @property
    def choices(self) -> dict[str, type[BaseModel]]:
        """The calls that may stand here, by name."""
        models = [branch for branch in self.branches if _is_model(branch)]
        called = [
            model
            for model in models
            if "kind" in model.model_fields and model not in (Model, TrainedModel)
        ]
        return {kind_word(model): model for model in called}

    @property
    def words(self) -> tuple[str, ...]:
        """The plain words that may stand here."""
        found: list[str] = []
        for branch in self.branches:
            of = get_args(branch)[0] if self.is_list else branch
            if get_origin(of) is Literal:
                found += map(str, get_args(of))
        return tuple(found)

    @property
    def is_list(self) -> bool:
        """Whether its value is a list of as many as one likes: its words stand in brackets."""
        return any(
            get_origin(branch) is tuple and Ellipsis in get_args(branch) for branch in self.branches
        )

    @property
    def takes_none(self) -> bool:
        return len(self.branches) < len(branches_of(self.annotation))

    @property
    def inside(self) -> Keys:
        """The keys that may stand in the braces of this one."""
        if get_origin(self.annotation) is dict:
            return _mapped(get_args(self.annotation)[1])
        models = [model for model in self.branches if _is_model(model)]
        found: dict[str, Key] = {}
        for model in models:
            if model not in NO_BRACES:
                found.update(arguments(model))
        return found


def model_of(kind: str) -> type[BaseModel] | None:
    """The model that a kind's word declares."""
    return KINDS.get("source" if kind == "benchmark" else kind) or MODELS.get(kind)


def settings(kind: str) -> Keys:
    """The keys in the braces of a kind."""
    if kind == "budget":
        return arguments(Limits)
    model = model_of(kind)
    keys = {} if model is None else _keys(model, _FROM_BASE)
    # A stage's fields that are no setting are filled by the checker.
    return {name: key for name, key in keys.items() if kind not in STAGES or key.is_setting}


def clauses(kind: str) -> Keys:
    """``from``, ``with`` and ``on``, as far as a kind takes them."""
    model = model_of(kind)
    found: dict[str, Key] = {}
    for info in model.model_fields.values() if model else ():
        for item in info.metadata:
            if isinstance(item, Clause):
                found[item.word] = _key(
                    item.word, info, Setting(item.doc, item.cls), info.is_required()
                )
    return found


def base(kind: str) -> Key | None:
    """What may stand after the ``=`` of a declaration, where the schema says it; a stage derives from its like."""
    model = MODELS.get(kind)
    if model is None:
        return None
    source = model.model_fields.get("source")
    return Key(kind, source.annotation if source else model, Setting(), required=True)


def arguments(model: type[BaseModel]) -> Keys:
    """The arguments of a call, in order."""
    return _keys(model, ("kind",))


def at(keys: Keys, path: Sequence[str]) -> Key | None:
    """The key that a dotted path leads to.

    >>> at(settings("sft"), ("checkpoint", "every")).setting.unit
    'steps'
    """
    key: Key | None = None
    for part in path:
        key = (keys if key is None else key.inside).get(part)
        if key is None:
            return None
    return key


def _keys(model: type[BaseModel], without: Iterable[str]) -> dict[str, Key]:
    found, twins = {}, or_from_env(model)
    for name, info in model.model_fields.items():
        is_clause = any(isinstance(item, Clause) for item in info.metadata)
        is_twin = name not in twins and name.removesuffix("_env") in twins
        if name in without or is_clause or is_twin:
            continue
        setting = setting_of(info.metadata)
        word = setting.key if setting and setting.key else name
        found[word] = _key(word, info, setting, info.is_required() or name in twins)
    return found


def _key(word: str, info: FieldInfo, setting: Setting | None, required: bool) -> Key:
    default = None if required else info.default
    return Key(word, info.annotation, setting or Setting(), required, default, setting is not None)


def _mapped(want: Any) -> dict[str, Key]:
    columns = {name: type_ for name, type_ in COLUMNS.items() if name not in NOT_MAPPED}
    return {
        name: Key(name, want, Setting(f"the column `{name}`, {type_}", "rows"), required=False)
        for name, type_ in columns.items()
    }


def _plain(annotation: Any) -> Any:
    """Without what a declaration adds; of a list of expressions each."""
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return RowExpr if plain == tuple[RowExpr, ...] else plain


def _is_model(branch: Any) -> bool:
    return isinstance(branch, type) and issubclass(branch, BaseModel)
