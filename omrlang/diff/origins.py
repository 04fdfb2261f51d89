"""A checked recipe, or what a saved plan says of it, becomes the answer to one question: which layer set this value of this stage, and where."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omrlang.diff.report import Place
from omrlang.hir import Provenance, Recipe
from omrlang.provenance import nearest_set, origin_of, where
from omrlang.types import construct


@dataclass(frozen=True, slots=True)
class Origins:
    """Who set what; nobody knows of a plan whose recipe is not at hand and that does not say it. ``saved`` are places by
    stage and path."""

    recipe: Recipe | None = None
    saved: Mapping[tuple[str, str], Place] = field(default_factory=dict)

    def place(self, stage: str, paths: Sequence[str]) -> Place | None:
        """Of the value, of what it is a part of, or of the thing that the stage names; of several paths the one set."""
        if self.recipe is None:
            return next((found for path in paths for found in self._saved(stage, path)), None)
        if "seed" in paths:
            return _place(self.recipe.settings.get("seed"))
        found = next((item for item in self.recipe.stages if item.spec.name == stage), None)
        if found is None:
            return None
        root, _, rest = paths[0].partition(".")
        thing = next((item for item in self.recipe.things if item.value.name == root), None)
        if thing is not None and not hasattr(found.spec, root):
            at = nearest_set(thing.settings, f"source.{rest}") or nearest_set(thing.settings, rest)
            return _place(at)
        origins = [origin_of(path, found, self.recipe) for path in paths]
        return _place(next((item for item in origins if item.span is not None), origins[0]))

    def _saved(self, stage: str, path: str) -> Iterator[Place]:
        """The nearest around a path; settings of the whole recipe last."""
        whole = path
        while path:
            if (stage, path) in self.saved:
                yield self.saved[stage, path]
            path = path.rpartition(".")[0]
        if ("", whole) in self.saved:
            yield self.saved["", whole]


def saved_origins(values: Sequence[Mapping[str, Any]]) -> Origins:
    """From every value of a resolved recipe with its layer and its ``file:line``."""
    places = {}
    for value in values:
        path, _, line = (value["place"] or "").rpartition(":")
        at = {"path": os.path.normpath(path), "line": int(line)} if line.isdigit() else {}
        name = "" if value["kind"] == "recipe" else value["name"]
        places[name, value["path"]] = construct(Place, layer=value["layer"], **at)
    return Origins(saved=places)


def _place(found: Provenance | None) -> Place:
    if found is None or found.span is None:
        return construct(Place, layer="default")
    at = where(found.span)
    path = os.path.normpath(at.file)
    return construct(Place, layer=found.layer, path=path, line=at.line, column=at.column)
