"""Plans of recipes built by hand, and the index as a driver leaves it after it ran one of them."""

from __future__ import annotations

import json
from pathlib import Path

import made_recipes as made

from omrlang.plan import Plan, PlanStage
from omrlang.planning import make_plan
from omrlang.schema import Spec
from omrlang.select import Wanted


def planned(
    *specs: Spec,
    state: Path = Path("nowhere"),
    path: Path = Path("made.omr"),
    select: tuple[str, ...] = (),
    force: tuple[str, ...] = (),
) -> Plan:
    """The plan of these stages (none: the quickstart)."""
    recipe = made.recipe(*(specs or made.quickstart()), path=path)
    return make_plan(recipe, state, path, wanted=Wanted(select, force))


def write_index(state: Path, plan: Plan, records: dict[str, dict[str, object]]) -> None:
    """An index as the driver leaves it: every stage was planned, ``records`` are of those that ran, by name."""
    state.mkdir(exist_ok=True)
    by_name = {stage.name: stage for stage in plan.stages}
    data = {
        "format": 1,
        "stages": {
            by_name[name].fingerprint: {"name": name, "kind": by_name[name].spec.kind, **record}
            for name, record in records.items()
        },
        "names": {
            f"{Path(plan.recipe).resolve()}::{stage.name}": stage.fingerprint
            for stage in plan.stages
        },
        "rates": {},
        "previous": {stage.fingerprint: previous(stage, plan) for stage in plan.stages},
    }
    (state / "index.json").write_text(json.dumps(data))


def previous(stage: PlanStage, plan: Plan) -> dict[str, object]:
    """What the driver leaves of a planned stage, so that a later plan can say what moved."""
    return {
        "spec": stage.spec.model_dump(mode="json"),
        "parents": {name: plan.stage(name).fingerprint for name in stage.parents},
        "revision": stage.revision,
        "pins": {pin.what: pin.revision for pin in plan.pins if stage.name in pin.stages},
    }


def finished(plan: Plan, **more: object) -> dict[str, dict[str, object]]:
    """Records of a run that did all of the plan."""
    return {
        stage.name: {"status": "done", "num_rows": 10, "num_dropped": 0, "seconds": 1.0, **more}
        for stage in plan.stages
    }
