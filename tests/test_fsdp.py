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
import torch
import transformers

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


# ---- as a user runs it -----------------------------------------------------------------------------------------------

RECIPE = """omr 1

use std.formats

seed = 3

model tiny = fresh("qwen2", layers = 1, hidden = 32, heads = 2, vocabulary = characters, seed = 1) {
  precision = fp32
}

source sums from jsonl("sums.jsonl") {
  columns {
    question = problem
    thinking = working
    answer   = text(result)
  }
}

mix questions from [sums: all]

sft cold_start from questions with tiny {
  prompt    = formats.think_answer_short
  pack      = 256
  batch     = 4 packs
  steps     = 4
  lr        = cosine(1e-3)
  precision = fp32
  processes = 2
  sharding  = SHARDING
}

rl reasoner from questions with cold_start {
  prompt       = formats.think_answer_short
  algorithm    = grpo(clip = [0.2, 0.2], kl = 0.01)
  reward       = len(response) / 24
  group        = 4
  batch        = 2 prompts
  steps        = 2
  lr           = constant(1e-3)
  temperature  = 1.0
  max_prompt   = 128
  max_response = 24
  precision    = fp32
  engine       = transformers(batch = 8)
  processes    = 2
  sharding     = SHARDING
}
"""


def omr(folder: Path, *words: str) -> str:
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "omrlang", *words],
        cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"problem": f"{i}+{i}", "working": f"{i}+{i}={2 * i}", "result": 2 * i})
        for i in range(40)
    ]
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    for name, text in {
        "parts": "fsdp(reshard_after_forward = false)",
        "plain": "none",
        "away": "fsdp(offload = true)",
    }.items():
        (tmp_path / f"{name}.omr").write_text(RECIPE.replace("SHARDING", text))
    return tmp_path


def test_it_is_shown_and_moves_no_fingerprint(folder: Path) -> None:
    shown = omr(folder, "show", "sharding", "parts.omr")
    assert shown.startswith("sft cold_start: PyTorch FSDP2, 2 processes\n{\n")
    assert '"reshard_after_forward": false' in shown
    assert '"offload_policy": "OffloadPolicy"' in shown
    assert "CPUOffloadPolicy" in omr(folder, "show", "sharding", "away.omr")
    assert omr(folder, "show", "sharding", "plain.omr").startswith(
        "sft cold_start: plain data parallel, 2 processes\n"
    )
    said = omr(folder, "diff", "plain.omr", "parts.omr")
    assert "no change in meaning" in said.lower(), said
    assert "sharding" in said


@pytest.mark.slow
def test_both_stages_run_and_what_is_saved_is_a_plain_model(folder: Path) -> None:
    """Fine-tuned and reinforced, with a reference that is a second model; then what plain training makes of the same."""
    kept = {}
    for name in ("parts", "plain"):
        state = folder / f".{name}"
        omr(folder, "run", f"{name}.omr", "--state", str(state))
        (model,) = (
            path.parent for path in state.glob("models/*/README.md") if "rl" in path.read_text()
        )
        kept[name] = transformers.AutoModelForCausalLM.from_pretrained(model).state_dict()
    assert kept["parts"].keys() == kept["plain"].keys()
    for key, expected in kept["plain"].items():
        torch.testing.assert_close(kept["parts"][key], expected, atol=1e-3, rtol=0)
