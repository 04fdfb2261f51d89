"""A recipe or a run's id to what ran: its plan, and of each stage what the index says of its artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omr_runtime.errors import RunError
from omr_runtime.store import State, read_index
from omrlang.plan import Plan, PlanStage
from omrlang.schema import Eval

Entry = dict[str, Any]
"""What ``index.json`` holds of an artifact."""


@dataclass(frozen=True, slots=True)
class Ran:
    """``entries`` maps the name of each stage that has something in the store to its entry of the index."""

    state: State
    plan: Plan
    entries: dict[str, Entry]

    @property
    def evals(self) -> tuple[PlanStage, ...]:
        """The finished evals."""
        return tuple(
            stage
            for stage in self.plan.stages
            if isinstance(stage.spec, Eval) and self.is_done(stage.name)
        )

    def is_done(self, name: str) -> bool:
        return bool(self.entries.get(name, {}).get("status") == "done")


def find(folder: Path, target: str | None = None) -> Ran:
    """What ran last under a recipe's path or a run's id; of all recipes the last one without ``target``.

    RunError where nothing was run under that name, or only by a version of omr whose plans this one cannot read.
    """
    state = State(folder)
    files = sorted(state.plans.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    plans = {path: _read(path) for path in files}
    for path, plan in plans.items():
        if plan is not None and (target in (None, path.stem) or _same_recipe(plan, target)):
            return of_plan(state, plan)
    raise RunError(_nothing(state, target, plans))


def of_stage(state: State, fingerprint: str) -> Ran:
    """The last run whose plan has the artifact. RunError where its plan is no longer there."""
    files = sorted(state.plans.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for plan in map(_read, files):
        if plan is not None and any(stage.fingerprint == fingerprint for stage in plan.stages):
            return of_plan(state, plan)
    raise RunError(f"no plan on {state.folder} has the artifact {fingerprint}")


def of_plan(state: State, plan: Plan) -> Ran:
    """What there is of the stages of a plan, whatever run made it."""
    stages = read_index(state)["stages"]
    known = {s.name: stages[s.fingerprint] for s in plan.stages if s.fingerprint in stages}
    return Ran(state, plan, known)


def _nothing(state: State, target: str | None, plans: dict[Path, Plan | None]) -> str:
    named = sorted({plan.recipe for plan in plans.values() if plan is not None})
    old = sum(plan is None for plan in plans.values())
    parts = [f"nothing was run on {state.folder}{f' under {target!r}' if target else ''}"]
    parts += [f"there are: {', '.join(named)}"] if named else []
    parts += [f"{old} of its plans can only be read by another version of omr"] if old else []
    return "; ".join(parts)


def _same_recipe(plan: Plan, target: str | None) -> bool:
    """By the file, from wherever it is named; one that amends a recipe of another folder, whose paths start there, by its
    name as it was run."""
    path = Path(target or "")
    here = path.name == Path(plan.recipe).name and path.resolve().parent == Path(plan.folder)
    return here or target == plan.recipe


def _read(path: Path) -> Plan | None:
    """None for what no plan of this version is: another one wrote it."""
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
