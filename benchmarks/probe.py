"""A recipe to what the plan of each sample, sft, rl and eval stage says after one probe, beside what the stage then took.

    python benchmarks/probe.py pipelines/quickstart.omr [STAGE ...]

All those stages, or the ones that are named. Stage after stage: probe, plan, run, in a new state folder. Asked for: time and tokens within 25%, memory within 15%.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from omrlang.compiler import load
from omrlang.plan import Plan, PlanStage
from omrlang.planning import make_plan

MEASURED = ("sample", "sft", "rl", "eval")
LIMITS = {"seconds": 0.25, "tokens": 0.25, "memory": 0.15}


def main(recipe: Path, only: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        print("| stage | number | planned | was | error | asked for |\n|---|---|---|---|---|---|")
        for stage in _plan(recipe, state).stages:
            if stage.spec.kind in MEASURED and (not only or stage.name in only):
                _omr("run", recipe, state, *(f"--select=+{name}" for name in stage.parents))
                _omr("probe", recipe, state, stage.name)
                planned = _planned(_plan(recipe, state).stage(stage.name))
                _omr("run", recipe, state, f"--select={stage.name}")
                _print(stage.name, planned, _actual(state, stage.fingerprint))
    return 0


def _plan(recipe: Path, state: Path) -> Plan:
    found, _ = load(recipe, [])
    assert found is not None, f"{recipe} is no recipe that can be planned"
    return make_plan(found, state, recipe)


def _omr(command: str, recipe: Path, state: Path, *arguments: str) -> None:
    words = [sys.executable, "-m", "omrlang", command, str(recipe), *arguments]
    done = subprocess.run([*words, "--state", str(state)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def _planned(stage: PlanStage) -> dict[str, float | None]:
    costs = stage.costs
    assert costs is not None, "each stage of a new plan has its costs"
    peak = costs.memory.total if costs.memory is not None else costs.extra.get("peak_bytes")
    return {
        "seconds": costs.seconds.mid,
        "tokens": costs.tokens.mid,
        "memory": peak.mid if peak is not None else None,
    }


def _actual(state: Path, fingerprint: str) -> dict[str, float]:
    record: dict[str, Any] = json.loads((state / "index.json").read_text())["stages"][fingerprint]
    names = {"seconds": "seconds", "tokens": "tokens", "memory": "peak_bytes"}
    return {name: record[key] for name, key in names.items()}


def _print(stage: str, planned: dict[str, float | None], was: dict[str, float]) -> None:
    for name, actual in was.items():
        guess = planned[name]
        if guess is None:
            print(f"| {stage} | {name} | unknown | {actual:,.1f} | | |")
            continue
        error = (guess - actual) / actual
        verdict = "held" if abs(error) <= LIMITS[name] else "NOT held"
        print(f"| {stage} | {name} | {guess:,.1f} | {actual:,.1f} | {error:+.0%} | {verdict} |")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
