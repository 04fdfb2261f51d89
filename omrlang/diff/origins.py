"""A checked recipe becomes the answer to one question: which layer set this value of this stage, and where."""

from __future__ import annotations

from dataclasses import dataclass

from omrlang.diff.report import Place
from omrlang.hir import Provenance, Recipe
from omrlang.provenance import origin_of, where
from omrlang.types import construct


@dataclass(frozen=True, slots=True)
class Origins:
    """Who set what; nobody knows of a plan whose recipe is not at hand."""

    recipe: Recipe | None = None

    def place(self, stage: str, path: str) -> Place | None:
        """Of the value, of what it is a part of, or of the thing that the stage names."""
        if self.recipe is None:
            return None
        if path == "seed":
            return _place(self.recipe.settings.get("seed"))
        found = next((item for item in self.recipe.stages if item.spec.name == stage), None)
        return None if found is None else _place(origin_of(path, found, self.recipe))


def _place(found: Provenance | None) -> Place:
    if found is None or found.span is None:
        return construct(Place, layer="default")
    at = where(found.span)
    return construct(Place, layer=found.layer, path=at.file, line=at.line, column=at.column)
