"""Every shipped recipe is formatted, checks clean and can be planned; those that run on a laptop run twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "pipelines").rglob("*.omr"), key=str)
# Files that amend another are tested in one process, in test_openmmreasoner and test_small_studies.
AMENDING = ("ablations", "findings")
RECIPES = [path for path in RECIPES if path.is_file() and path.parent.name not in AMENDING]
STDLIB = sorted((ROOT / "stdlib").glob("*.omr"))


def omr(*arguments: str | Path, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
    """One command as a person types it."""
    return subprocess.run(
        [sys.executable, "-m", "omrlang", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )


@pytest.mark.parametrize("path", [*RECIPES, *STDLIB], ids=lambda path: path.stem)
def test_formatted_and_clean(path: Path) -> None:
    assert omr("fmt", "--check", path).returncode == 0
    result = omr("check", path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_plans(path: Path, tmp_path: Path) -> None:
    result = omr("plan", path, "--json", "--state", tmp_path)
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert all(stage["action"] == "new" for stage in plan["stages"])


def metrics(state: Path) -> dict[str, dict[str, Any]]:
    """What each finished stage of a state folder measured, by stage name."""
    index = json.loads((state / "index.json").read_text())
    return {entry["name"]: entry.get("metrics", {}) for entry in index["stages"].values()}


def run_twice(state: Path, recipe: str, *settings: str) -> dict[str, dict[str, Any]]:
    """Run a recipe, then see that the second run executes nothing and that the plan says so."""
    assignments = [word for setting in settings for word in ("--set", setting)]
    arguments = [f"pipelines/{recipe}.omr", "--state", str(state), *assignments]
    first = omr("run", *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    plan = json.loads(omr("plan", *arguments, "--json").stdout)
    assert {stage["action"] for stage in plan["stages"]} == {"cached"}
    shards = {path: path.stat().st_mtime_ns for path in (state / "store").rglob("*")}
    started = time.monotonic()
    second = omr("run", *arguments)
    assert second.returncode == 0
    assert shards == {path: path.stat().st_mtime_ns for path in (state / "store").rglob("*")}
    print(f"second run: {time.monotonic() - started:.2f} s")
    return metrics(state)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quickstart_learns(tmp_path: Path) -> None:
    """Accuracy after SFT is clearly above untrained, after GSPO clearly above SFT, on puzzles it never saw."""
    found = run_twice(tmp_path, "quickstart")
    before, between, after = (found[name]["accuracy"] for name in ("before", "between", "after"))
    print(f"accuracy: before {before:.3f}, after SFT {between:.3f}, after GSPO {after:.3f}")
    assert between > before + 0.2
    assert after > between + 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_word_problems_minimal(tmp_path: Path) -> None:
    """The whole road on real data with a real pretrained model, at the least size that has every step in it."""
    found = run_twice(
        tmp_path,
        "word_problems",
        "mawps.take=16",
        "svamp.take=8",
        "mawps_test.take=8",
        "svamp_test.take=8",
        "own.n=2",
        "reasoner.steps=1",
        "reasoner.batch=2 prompts",
        "reasoner.group=4",
    )
    assert 0 <= found["after"]["accuracy"] <= 1
    assert set(found["after"]["by_source"]) == {"mawps_test", "svamp_test"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_puzzlevqa(tmp_path: Path) -> None:
    """Real pictures go the road; the model is too small to answer, so only the road is looked at."""
    found = run_twice(
        tmp_path, "puzzlevqa", "color_grid.take=12", "triangle.take=50", "size_cycle.take=12"
    )
    assert 0 <= found["score"]["accuracy"] <= 1
