"""The path of a setting becomes who set it and where: in the stage, or in the thing that the stage names."""

from __future__ import annotations

from collections.abc import Mapping

from omrlang.hir import Provenance, Recipe, Stage
from omrlang.plan import Change, Where
from omrlang.source import Span

FIELD_OF = {"with": "model", "on": "hardware"}


def placed(change: Change, stage: Stage, recipe: Recipe) -> Change:
    """The change with the layer that set its new value and the place; as it is where no recipe says it."""
    if change.reason != "param_changed" or change.path == "kind":
        return change
    origin = origin_of(change.path, stage, recipe)
    return change.model_copy(
        update={"layer": origin.layer, "at": where(origin.span) if origin.span else None}
    )


def origin_of(path: str, stage: Stage, recipe: Recipe) -> Provenance:
    """Who set what stands at the path, or what it is a part of; a default where nobody did."""
    root, _, rest = path.partition(".")
    named = getattr(getattr(stage.spec, FIELD_OF.get(root, root), None), "name", None)
    thing = next((item for item in recipe.things if item.value.name == named), None)
    if thing is not None and (found := nearest_set(thing.settings, rest)) is not None:
        return found
    found = nearest_set(stage.settings, path)
    if found is not None:
        return found
    return Provenance("default", None)


def nearest_set(settings: Mapping[str, Provenance], path: str) -> Provenance | None:
    """That of the path itself, else of the smallest part around it that was set."""
    while path:
        if path in settings:
            return settings[path]
        path = path.rpartition(".")[0]
    return None


def where(span: Span) -> Where:
    """A span's start as line and column."""
    line, column = span.file.position(span.start)
    return Where(file=str(span.file.path), line=line, column=column)
