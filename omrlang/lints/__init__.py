"""A checked recipe to warnings about training: mistakes of this field, found before anything is spent.

One lint, one file. A lint here looks at the recipe alone; what needs costs is asked when a plan is made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from omrlang.diagnostics import Diagnostic
from omrlang.hir import Recipe
from omrlang.lints import (
    clip_never_acts,
    clip_scale,
    judges_itself,
    prompt_mismatch,
    trained_on_test,
)
from omrlang.lints.places import Graph

LINTS = (clip_never_acts, clip_scale, prompt_mismatch, trained_on_test, judges_itself)


def lint(
    recipe: Recipe, allowed: Collection[str] = (), denied: Collection[str] = ()
) -> Iterator[Diagnostic]:
    """What the lints find. ``allowed`` codes say nothing, ``denied`` ones are errors."""
    graph = Graph(recipe)
    for module in LINTS:
        for found in module.lint(graph):
            if found.code in denied:
                yield replace(found, severity="error")
            elif found.code not in allowed:
                yield found
