"""What the annotation of a field says: its branches, which of them are written as a call, and the setting beside it."""

from __future__ import annotations

import types
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omrlang.schema import KINDS
from omrlang.types import Gpu, Hardware, Model, Near, Prompt, RowExpr, Setting

THINGS: dict[type[BaseModel], str] = {Prompt: "prompt", Hardware: "hardware", Gpu: "gpu"}
"""What is declared by a statement of its own, and so is named where it is wanted."""


def plain_type(want: Any) -> tuple[Any, Setting | None]:
    """Without ``Annotated``, and the innermost ``Setting`` that was found there."""
    setting = None
    while get_origin(want) is Annotated:
        want, *metadata = get_args(want)
        setting = setting_of(metadata) or setting
    return want, setting


def branches_of(want: Any) -> tuple[Any, ...]:
    """The members of a union, of unions in it too; a type that is none stands alone."""
    if get_origin(want) not in (Union, types.UnionType):
        return (want,)
    flat: list[Any] = []
    for branch in get_args(want):
        flat.extend(branches_of(plain_type(branch)[0]))
    return tuple(flat)


def is_choice(want: Any) -> bool:
    """A model whose ``kind`` is a fixed word and that no declaration makes."""
    is_model = isinstance(want, type) and issubclass(want, BaseModel)
    return is_model and want not in THINGS and "kind" in want.model_fields


def kind_word(model: type[BaseModel]) -> str:
    """How a branch is called: `gspo` in `gspo(…)`."""
    return str(model.model_fields["kind"].default)


@cache
def choice_words() -> frozenset[str]:
    """Every word that stands for itself where some setting takes it."""
    words, todo, seen = {"all", "unpublished"}, [*KINDS.values(), Model, *THINGS, Near], set()
    while todo:
        want = todo.pop()
        if isinstance(want, type) and issubclass(want, BaseModel) and want not in seen:
            seen.add(want)
            todo += [info.annotation for info in want.model_fields.values()]
        elif get_origin(want) is Literal:
            words |= {word for word in get_args(want) if isinstance(word, str)}
        else:
            todo += get_args(want)
    return frozenset(words)


def or_from_env(model: type[BaseModel]) -> set[str]:
    """The fields that have a twin for `env("…")`: ``url`` and ``url_env``, of which one is needed."""
    return {name for name in model.model_fields if f"{name}_env" in model.model_fields}


def takes_several(info: FieldInfo) -> bool:
    """Whether a call's first field takes all arguments without a name: ``near(question, images, at = 0.9)``."""
    return get_args(info.annotation)[:1] == (RowExpr,) and get_origin(info.annotation) is tuple


def setting_of(metadata: list[Any]) -> Setting | None:
    """The one that stands beside a field's type."""
    found = [item for item in metadata if isinstance(item, Setting)]
    return found[0] if found else None
