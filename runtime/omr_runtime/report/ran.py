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

    RunError where nothing was run under that name.
    """
    state = State(folder)
    files = sorted(state.plans.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        plan = _read(path)
        if target is None or path.stem == target or _same_recipe(plan, target):
            return of_plan(state, plan)
    named = sorted({_read(path).recipe for path in files})
    there = f"; there are: {', '.join(named)}" if named else ""
    raise RunError(
        f"nothing was run on {state.folder}{f' under {target!r}' if target else ''}{there}"
    )


def of_plan(state: State, plan: Plan) -> Ran:
    """What there is of the stages of a plan, whatever run made it."""
    stages = read_index(state)["stages"]
    known = {s.name: stages[s.fingerprint] for s in plan.stages if s.fingerprint in stages}
    return Ran(state, plan, known)


def _same_recipe(plan: Plan, target: str) -> bool:
    path = Path(target)
    return path.name == Path(plan.recipe).name and path.resolve().parent == Path(plan.folder)


def _read(path: Path) -> Plan:
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(f"{path}: no plan that this version of omr can read") from error
