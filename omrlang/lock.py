"""``x.lock`` beside a recipe becomes the revisions that hold for it, and what a recipe asks of a hub becomes a commit.

A lock says of everything outside a recipe which content or commit was meant. Reading one needs no network; ``omr lock``
writes it. A recipe that amends another is held by the other's lock too, its own first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import is_
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from omrlang.diagnostics import InputError
from omrlang.hir import Recipe
from omrlang.pins import Kind
from omrlang.types import Frozen, HfData, HfModel

FORMAT = "omrlock 1"
SUFFIX = ".lock"


class Locked(Frozen):
    """``what`` as the recipe names it, ``asked`` the revision that it asks for on a hub (None: none, or a local file).

    ``revision`` is a commit on the hub, or the sha256 of local files; a wheel's is of its file."""

    kind: Kind
    what: str
    asked: str | None = None
    revision: str
    num_rows: int | None = None
    num_bytes: int | None = None


class _File(Frozen):
    format: Literal["omrlock 1"]
    pins: tuple[Locked, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """What is locked, by kind, name and what was asked for. ``exists`` tells an empty lock from none."""

    pins: Mapping[tuple[Kind, str, str | None], Locked] = field(default_factory=dict)
    exists: bool = False

    def find(self, kind: Kind, what: str, asked: str | None = None) -> Locked | None:
        return self.pins.get((kind, what, asked))


def of(pins: Iterable[Locked]) -> Lock:
    """The lock that holds these."""
    return Lock({(pin.kind, pin.what, pin.asked): pin for pin in pins}, exists=True)


def lock_path(recipe: Path) -> Path:
    """``x.lock`` beside ``x.omr``."""
    return recipe.with_suffix(SUFFIX)


def read_lock(path: Path) -> Lock:
    """No lock where there is no file. Raises ``InputError`` for a file that is none."""
    try:
        return of(_File.model_validate_json(path.read_bytes()).pins)
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        told = f"{place}: {first['msg']}" if place else first["msg"]
        raise InputError(f"{path} is no lock file ({told}); `omr lock` writes one") from error


def lock_text(pins: Iterable[Locked]) -> str:
    """The file's text: sorted, a line each value, so that a change of one pin is one change in a diff."""
    ordered = sorted(pins, key=lambda pin: (pin.kind, pin.what, pin.asked or ""))
    data = {"format": FORMAT, "pins": [pin.model_dump(exclude_none=True) for pin in ordered]}
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def lock_of(recipe: Recipe) -> Lock:
    """What holds for a recipe: its own lock, and for the rest those of the files that it amends."""
    found = [read_lock(path) for path in dict.fromkeys(_paths(recipe))]
    pins = {key: pin for lock in reversed(found) for key, pin in lock.pins.items()}
    return Lock(pins, any(lock.exists for lock in found))


def _paths(recipe: Recipe) -> Iterator[Path]:
    yield lock_path(recipe.path)
    for stage in recipe.stages:
        file = stage.span.file.path
        if file.parts[:1] != ("std",):
            yield lock_path(file)


def pinned(recipe: Recipe, lock: Lock) -> Recipe:
    """The recipe with the locked commit wherever a hub is asked for something that moves."""
    if not any(pin.asked != pin.revision for pin in lock.pins.values()):
        return recipe
    stages = (replace(stage, spec=_pinned(stage.spec, lock)) for stage in recipe.stages)
    models = (_pinned(model, lock) for model in recipe.models)
    return replace(recipe, stages=tuple(stages), models=tuple(models))


def _pinned(value: Any, lock: Lock) -> Any:
    """The same object where nothing in it is on a hub."""
    if isinstance(value, HfData | HfModel):
        kind: Kind = "data" if isinstance(value, HfData) else "model"
        found = lock.find(kind, value.id, value.revision)
        return value if found is None else value.model_copy(update={"revision": found.revision})
    if isinstance(value, tuple):
        items = tuple(_pinned(item, lock) for item in value)
        return value if all(map(is_, items, value)) else items
    if isinstance(value, BaseModel):
        parts = {name: getattr(value, name) for name in type(value).model_fields}
        moved = {name: new for name, old in parts.items() if (new := _pinned(old, lock)) is not old}
        return value.model_copy(update=moved) if moved else value
    return value
