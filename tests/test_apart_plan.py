"""What a plan and a launch make of rollouts by engines apart: fewer processes that train, GPUs of each side, time and memory of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from omr_runtime.train.launch import command, ranks_of_a_node
from omr_runtime.work import Work
from omrlang.cli import main
from omrlang.compiler import load
from omrlang.plan import Costs, PlanStage
from omrlang.planning import make_plan
from omrlang.render import render
from omrlang.schema import Rl
from omrlang.settle import drawing_hardware, num_devices

RECIPE = """omr 1

use std.formats
use std.gpus
use std.models

hardware node = COUNT * gpus.h100_80gb { price = $2 / gpu_hour }

source questions from jsonl("questions.jsonl") { rows = 10_000 }

source held_out from jsonl("held_out.jsonl") { rows = 500 }

rl reasoner from questions with models.MODEL on node {
  prompt       = formats.think_answer
  algorithm    = grpo(clip = [0.2, 0.2])
  reward       = answer_matches
  group        = 8
  batch        = 32 prompts
  minibatch    = 8 prompts
  steps        = 10
  lr           = constant(1e-6)
  temperature  = 1
  max_prompt   = 512
  max_response = 512
  sharding     = zero(3)
  watch { every = 5 steps, from = [held_out] }
  REST
}
"""
APART = "engine = vllm(apart = true)"


def written(folder: Path, rest: str, count: int, model: str) -> Path:
    path = folder / "recipe.omr"
    text = RECIPE.replace("REST", rest).replace("COUNT", str(count)).replace("MODEL", model)
    path.write_text(text)
    return path


def stage_of(folder: Path, rest: str, count: int = 8, model: str = "qwen2_5_1_5b") -> PlanStage:
    path = written(folder, rest, count, model)
    recipe, found = load(path)
    assert recipe is not None, render(found)
    return make_plan(recipe, folder / "state", path).stage("reasoner")


def costs_of(stage: PlanStage) -> Costs:
    assert stage.costs is not None
    return stage.costs


def spec_of(stage: PlanStage) -> Rl:
    assert isinstance(stage.spec, Rl)
    return stage.spec


@pytest.mark.parametrize(
    ("count", "tensor_parallel", "train"), [(8, 1, 4), (8, 3, 2), (2, 1, 1), (16, 1, 8), (16, 7, 2)]
)
def test_so_many_train_and_so_many_draw(
    tmp_path: Path, count: int, tensor_parallel: int, train: int
) -> None:
    rest = f"engine = vllm(apart = true, tensor_parallel = {tensor_parallel})"
    spec = spec_of(stage_of(tmp_path, rest, count))
    assert num_devices(spec) == train
    drawing = drawing_hardware(spec)
    assert drawing is not None
    assert drawing.count == train * tensor_parallel
    assert ranks_of_a_node(spec) == train // (2 if count > 8 else 1)


@pytest.mark.parametrize(
    ("count", "tensor_parallel", "told"),
    [
        (1, 1, "devices of a machine 1 / 1 + tensor_parallel 2 = 0.5, no whole number"),
        (8, 2, "devices of a machine 8 / 1 + tensor_parallel 3 = 2.667, no whole number"),
        (16, 15, "devices of a machine 8 / 1 + tensor_parallel 16 = 0.5, no whole number"),
    ],
)
def test_too_few_gpus_or_some_that_would_stand_idle(
    tmp_path: Path, count: int, tensor_parallel: int, told: str
) -> None:
    rest = f"engine = vllm(apart = true, tensor_parallel = {tensor_parallel})"
    recipe, found = load(written(tmp_path, rest, count, "qwen2_5_1_5b"))
    assert recipe is None
    assert "each that trains has an engine apart beside it" in render(found)
    assert told in render(found)


def test_nothing_is_learned_otherwise(tmp_path: Path) -> None:
    marks = {stage_of(tmp_path, rest).fingerprint for rest in ("", "engine = vllm()", APART)}
    assert len(marks) == 1


def test_each_side_takes_its_time_and_behind_the_longer_counts(tmp_path: Path) -> None:
    here, there, behind = (
        costs_of(stage_of(tmp_path, rest))
        for rest in ("engine = vllm()", APART, f"{APART}, behind = 1 steps")
    )
    for part in ("update", "watch"):
        half, whole = (found.extra[f"seconds_{part}"].lo for found in (here, there))
        assert half is not None
        assert whole == pytest.approx(2 * half), part
    parts = [behind.extra[f"seconds_{name}"] for name in ("generation", "update")]
    both = behind.seconds.made.parts["generation beside learning"]
    assert (both.lo, both.mid, both.hi) == tuple(
        max(getattr(part, end) for part in parts) for end in ("lo", "mid", "hi")
    )
    assert (there.seconds.mid or 0) > (behind.seconds.mid or 0)
    hours = (there.gpu_hours.mid or 0) / (there.seconds.mid or 1) * 3600
    assert hours == pytest.approx(8), "all eight are paid for"


def test_the_trainer_has_no_engine_in_its_memory_and_the_engine_a_verdict_of_its_own(
    tmp_path: Path,
) -> None:
    here, there = (costs_of(stage_of(tmp_path, rest)).memory for rest in ("engine = vllm()", APART))
    assert here is not None
    assert there is not None
    assert "engine" in here.parts
    assert not [name for name in there.parts if "engine" in name]
    assert there.verdict == "fits"
    assert not [flip for flip in there.flips if "vllm" in flip or "behind" in flip]
    large = costs_of(stage_of(tmp_path, APART, 64, "qwen2_5_vl_72b"))
    needs, share = large.extra["engine_apart"], large.extra["engine_share"]
    assert (needs.lo or 0) > (share.mid or 0)
    assert large.memory is not None
    assert large.memory.verdict == "does not fit"
    spread = "engine = vllm(apart = true, tensor_parallel = 3)"
    assert (
        costs_of(stage_of(tmp_path, spread, 64, "qwen2_5_vl_72b")).extra["engine_apart"].hi
        < share.mid
    )  # type: ignore[operator]


def test_a_plan_says_who_does_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, APART, 8, "qwen2_5_1_5b")
    for view in ((), ("--md",), ("--html",)):
        main(["plan", str(path), "--state", str(tmp_path / "state"), *view])
        told = " ".join(capsys.readouterr().out.split())
        assert "4 of 8 GPUs train, 4 draw: an engine apart takes at least" in told
        assert "of its 72.0 on each" in told


def test_on_a_machine_without_a_gpu_it_is_another_process_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, f"{APART}, processes = 2", 8, "qwen2_5_1_5b")
    path.write_text(path.read_text().replace(" on node {", " {"))
    recipe, found = load(path)
    assert recipe is not None, render(found)
    stage = make_plan(recipe, tmp_path / "state", path).stage("reasoner")
    assert num_devices(spec_of(stage)) == 2
    assert "engine_apart" not in costs_of(stage).extra


def work_of(stage: PlanStage, folder: Path) -> Work:
    return Work(
        stage=stage, seed=1, base=str(folder), state=str(folder), out=str(folder), progress=str(folder / "p")
    )  # fmt: skip


def test_a_launch_starts_those_that_train(tmp_path: Path) -> None:
    argv, env = command(work_of(stage_of(tmp_path, APART), tmp_path), "work.json")
    assert "--nproc-per-node=4" in argv
    assert env["ACCELERATE_USE_DEEPSPEED"] == "true"


def test_a_step_of_slurm_has_the_gpus_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omr_runtime.train.launch.first_host", lambda *_: "first")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    rest = "engine = vllm(apart = true, tensor_parallel = 3)"
    argv, _ = command(work_of(stage_of(tmp_path, rest, 16), tmp_path), "work.json")
    for word in ("--nodes=2", "--ntasks=4", "--ntasks-per-node=2", "--gpus-per-node=8", "--cpus-per-task=32"):  # fmt: skip
        assert word in argv
