"""Plans as files: every recipe in ``cases/plans`` beside its plan.

``pytest tests/test_plan_cases.py --update`` rewrites what is expected; the change is then reviewed. What depends on the
machine (times, its memory) stands in no file. A fingerprint that moves here would make everybody run everything again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omrlang.compiler import load
from omrlang.plan import Estimate, Plan, PlanStage
from omrlang.planning import make_plan

CASES = Path(__file__).parent / "cases"
STATE = Path("nowhere")


def planned(path: Path) -> Plan:
    recipe, diagnostics = load(path)
    assert recipe is not None, [item.message for item in diagnostics]
    return make_plan(recipe, STATE, path.relative_to(CASES), diagnostics)


def shown(item: Estimate) -> list[object]:
    return [
        None if end is None else float(f"{end:.4g}") for end in (item.lo, item.mid, item.hi)
    ] + [item.unit, item.origin]


def stage_shown(stage: PlanStage) -> dict[str, object]:
    costs = stage.costs
    assert costs is not None
    found = {
        "fingerprint": stage.fingerprint,
        "parents": list(stage.parents),
        "action": stage.action,
        "reasons": list(stage.reasons),
        "rows_in": shown(costs.rows_in),
        "rows_out": shown(costs.rows_out),
        "tokens": shown(costs.tokens),
        "extra": {
            name: shown(item)
            for name, item in costs.extra.items()
            if not name.startswith("seconds")
        },
    }
    if costs.memory is not None:
        found["memory"] = {name: shown(part) for name, part in costs.memory.parts.items()}
    return found


def check(path: Path, text: str, update: bool) -> None:
    if update:
        path.write_text(text)
    assert path.read_text() == text, f"{path.name} differs; `pytest --update` rewrites it"


@pytest.mark.parametrize(
    "path", sorted((CASES / "plans").glob("*.omr")), ids=lambda path: path.stem
)
def test_plan(path: Path, update: bool) -> None:
    plan = planned(path)
    found = {
        "format_version": plan.format_version,
        "exit": plan.exit.model_dump(),
        "diagnostics": [f"{item.code} {item.line}:{item.column}" for item in plan.diagnostics],
        "stages": {stage.address: stage_shown(stage) for stage in plan.stages},
    }
    check(path.with_suffix(".plan.json"), json.dumps(found, indent=1) + "\n", update)
