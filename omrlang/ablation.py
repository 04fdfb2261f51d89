"""A recipe, what is to vary and how many seeds become arms: the sides that a study runs and compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omrlang.compiler import load_all, split_target, variant_path
from omrlang.diagnostics import Diagnostic
from omrlang.diff import Side
from omrlang.diff.origins import Origins
from omrlang.hir import Recipe, Stage
from omrlang.planning import make_plan
from omrlang.schema import Rl, Sft
from omrlang.targets import Unreadable


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant. ``recipes`` are it under one training seed after the other, the first under the recipe's own."""

    path: Path
    recipes: tuple[Recipe, ...]
    found: Sequence[Diagnostic]
    overrides: tuple[str, ...]

    def side(self, number: int, state: Path) -> Side:
        """The plan of one seed, made now: what is there by now counts as cached."""
        recipe = self.recipes[number]
        path = variant_path(self.path, recipe)
        plan = make_plan(recipe, state, path, self.found, self.overrides)
        return Side(str(path), plan, Origins(recipe))


def arms(base: str, vary: Sequence[str], seeds: int, overrides: Sequence[str] = ()) -> list[Arm]:
    """Every combination of what varies: ``PATH=V1,V2`` in ``vary``, or the sweeps of the file. Raises ``Unreadable``."""
    path, _ = split_target(Path(base))
    texts = (*overrides, *map(swept, vary))
    recipes, found = load_all(Path(base), texts)
    if not recipes:
        raise Unreadable(f"{base} has errors", found)
    if len(recipes) < 2 and seeds < 2:
        raise Unreadable(f"nothing varies in {base}: --vary PATH=V1,V2 or a `sweep` says what")
    return [
        Arm(
            path,
            tuple(reseeded(recipe, number) for number in range(seeds)),
            found,
            tuple(overrides),
        )
        for recipe in recipes
    ]


def swept(text: str) -> str:
    """``distil.n=1,2,4`` as the override that sweeps.

    >>> swept("distil.n=1,2,4")
    'distil.n=sweep(1,2,4)'
    """
    path, sign, values = text.partition("=")
    if not sign or not values.strip():
        raise Unreadable(f"--vary {text}: `PATH=V1,V2` is wanted")
    return f"{path}={values}" if values.lstrip().startswith("sweep(") else f"{path}=sweep({values})"


def reseeded(recipe: Recipe, number: int) -> Recipe:
    """The recipe with another seed for ``sft`` and ``rl`` alone, so that rows and samples are shared by all seeds."""
    if number == 0:
        return recipe
    seed = recipe.seed + number
    stages = tuple(_with_seed(stage, seed) for stage in recipe.stages)
    label = ",".join(filter(None, [recipe.variant, f"training seed={seed}"]))
    return replace(recipe, stages=stages, variant=label)


def _with_seed(stage: Stage, seed: int) -> Stage:
    if not isinstance(stage.spec, Sft | Rl):
        return stage
    return replace(stage, spec=stage.spec.model_copy(update={"seed": seed}))
