"""FSDP2 on two processes equals plain data parallel training, family by family, in both precisions, for all that is not trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.fsdp_cases import CASES, Case

ROOT = Path(__file__).parents[1]
ROUNDED = {"qwen2_5_vl bf16": 1e-3, "8 bits": 1e-2}
"""How far apart what is rounded to 8 or 16 bits may come to lie, over how far it moved: sums are made in another order, and
blocks of 8 bits begin anew in each part."""


@cache
def ran(folder: Path) -> dict[str, dict[str, Any]]:
    """All cases in one pair of processes."""
    where = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--nproc-per-node=2"]
    argv = [sys.executable, "-m", "torch.distributed.run", *where]
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*argv, str(ROOT / "tests" / "fsdp_cases.py"), str(folder)],
        env=env, capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    lines = (folder / "rank-0.jsonl").read_text().splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return ran(tmp_path_factory.mktemp("fsdp"))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_equals_plain_training(results: dict[str, dict[str, Any]], case: Case) -> None:
    found = results[case.name]
    allowed = ROUNDED.get(case.name, 1e-5)
    assert found["moved"] > 0
    assert found["apart"] < allowed * found["moved"]
    for plain, parts in zip(*found["curves"], strict=True):
        assert parts == pytest.approx(plain, rel=max(allowed, 1e-6))
    assert found["scores"][1] == pytest.approx(found["scores"][0], rel=max(allowed, 1e-6))


@pytest.mark.slow
def test_a_process_holds_half_of_it_between_steps(results: dict[str, dict[str, Any]]) -> None:
    for found in results.values():
        assert found["held"] == pytest.approx(0.5, abs=0.02)
        assert found["names"][0] == found["names"][1]
        assert found["counts"][0] == found["counts"][1]


@pytest.mark.slow
def test_steps_of_a_millionth_move_what_bf16_would_lose(results: dict[str, dict[str, Any]]) -> None:
    """30 steps of Adam at 1e-6: bf16 weights of 0.02 are 1e-4 apart from each other."""
    found = results["text bf16 small steps"]
    assert 1e-3 < found["moved"] < 1
    assert found["apart"] < 1e-5 * found["moved"]
