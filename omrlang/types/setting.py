"""How a setting or a clause is declared: what stands in the ``Annotated`` type of the field that holds its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

SettingClass: TypeAlias = Literal["rows", "weights", "speed", "meta"]
Scalar: TypeAlias = bool | int | float | str | None


class Frozen(BaseModel):
    """A value that never changes and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


Value = TypeVar("Value", bound=BaseModel)


def construct(kind: type[Value], /, **parts: Any) -> Value:
    """A value whose parts the checker has typed already, so that pydantic need not validate them again.

    Building pydantic's validators would cost a check a quarter of its time. What comes from outside (a plan, an
    index) is validated all the same.
    """
    return kind.model_construct(**parts)


@dataclass(frozen=True, slots=True)
class Setting:
    """How one setting is declared; stands in the ``Annotated`` type of the field that holds its value.

    ``cls`` decides what re-runs when the value changes (rows, weights) or that nothing does (speed, meta).
    ``unit`` is the unit that a bare number has; ``ge`` and ``le`` bound a number and
    may be reached, ``gt`` and ``lt`` may not.
    ``one_of`` names a group of settings of which exactly one must be given. ``units`` are those that an ``Amount`` may
    have. ``key`` is what the setting is called in a recipe where that is not the field's name.
    """

    doc: str = ""
    cls: SettingClass = "meta"
    unit: str | None = None
    ge: float | None = None
    le: float | None = None
    gt: float | None = None
    lt: float | None = None
    one_of: str | None = None
    units: tuple[str, ...] = ()
    key: str | None = None

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The field's JSON Schema with what is declared here: bounds, documentation, class, units, the recipe's word."""
        limits = {
            "minimum": self.ge,
            "exclusiveMinimum": self.gt,
            "maximum": self.le,
            "exclusiveMaximum": self.lt,
        }
        facts = {
            "description": self.doc,
            "x-class": self.cls,
            "x-key": self.key,
            "x-unit": self.unit,
            "x-units": list(self.units),
            "x-one-of": self.one_of,
        }
        found = handler(core)
        given = {word: limit for word, limit in limits.items() if limit is not None}
        if "prefixItems" in found:  # of a list of two numbers each has its bounds
            found["prefixItems"] = [part | given for part in found["prefixItems"]]
            given = {}
        return found | given | {word: fact for word, fact in facts.items() if fact}


@dataclass(frozen=True, slots=True)
class Clause:
    """Marks a field that is filled by ``from``, ``with`` or ``on`` and not by a setting in the braces."""

    word: Literal["from", "with", "on"]
    cls: SettingClass
    doc: str = ""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The field's JSON Schema with what is declared here."""
        facts = {"description": self.doc, "x-class": self.cls, "x-clause": self.word}
        return handler(core) | {word: fact for word, fact in facts.items() if fact}


def word_of(name: str, info: FieldInfo) -> str:
    """What a recipe calls a field."""
    keys = (item.key for item in info.metadata if isinstance(item, Setting) and item.key)
    return next(keys, name)
