"""A checked recipe and the state of earlier runs become a plan: what will run, why, and what it takes."""

from __future__ import annotations

from pathlib import Path

from omrlang import __version__
from omrlang.estimate.numbers import unknown
from omrlang.hir import Recipe
from omrlang.lower import Lowered, lower
from omrlang.pins import Pins
from omrlang.plan import Money, Plan, PlanStage, Totals
from omrlang.state import Index, decide, read_index


def make_plan(recipe: Recipe, state: Path, path: Path) -> Plan:
    """``path`` is the recipe's file as given; ``state`` the folder of earlier runs, which need not exist."""
    pins = Pins.open(recipe.folder, state)
    index = read_index(state)
    lowered = lower(recipe, pins)
    pins.save()
    fingerprints = {stage.name: stage.fingerprint for stage in lowered}
    stages = tuple(_plan_stage(stage, index, recipe.path, fingerprints) for stage in lowered)
    return Plan(
        omr_version=__version__,
        recipe=str(path),
        folder=str(recipe.folder.resolve()),
        seed=recipe.seed,
        stages=stages,
        models=recipe.models,
        removed=index.removed(recipe.path, frozenset(fingerprints)),
        totals=Totals(
            rows_sampled=unknown("rows", ""), tokens=unknown("tokens", ""), seconds=unknown("s", ""), gpu_hours=unknown("GPU-hours", ""),
            usd=Money(lo=None, mid=None, hi=None, origin="unknown"), not_estimated=0,
        ),
    )  # fmt: skip


def _plan_stage(stage: Lowered, index: Index, recipe: Path, fingerprints: dict[str, str]) -> PlanStage:
    decision = decide(stage, index, recipe, fingerprints)
    return PlanStage(
        address=f"{stage.spec.kind}.{stage.name}",
        name=stage.name,
        spec=stage.spec,
        fingerprint=stage.fingerprint,
        parents=stage.parents,
        revision=stage.revision,
        action=decision.action,
        reasons=decision.reasons,
        reason_text=decision.text,
        changes=decision.changes,
    )
