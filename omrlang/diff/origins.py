"""A checked recipe becomes the answer to one question: which layer set this value of this stage, and where."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass

from omrlang.diff.report import Place
from omrlang.hir import Provenance, Recipe
from omrlang.provenance import origin_of, where
from omrlang.types import construct


@dataclass(frozen=True, slots=True)
class Origins:
    """Who set what; nobody knows of a plan whose recipe is not at hand."""

    recipe: Recipe | None = None

    def place(self, stage: str, paths: Sequence[str]) -> Place | None:
        """Of the value, of what it is a part of, or of the thing that the stage names; of several paths the one set."""
        if self.recipe is None:
            return None
        if "seed" in paths:
            return _place(self.recipe.settings.get("seed"))
        found = next((item for item in self.recipe.stages if item.spec.name == stage), None)
        if found is None:
            return None
        origins = [origin_of(path, found, self.recipe) for path in paths]
        return _place(next((item for item in origins if item.span is not None), origins[0]))


def _place(found: Provenance | None) -> Place:
    if found is None or found.span is None:
        return construct(Place, layer="default")
    at = where(found.span)
    path = os.path.normpath(at.file)
    return construct(Place, layer=found.layer, path=path, line=at.line, column=at.column)
