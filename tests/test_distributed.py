"""Two gloo processes equal one; DeepSpeed's ZeRO stages and FSDP2 equal plain training. Started as the driver starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from omr_runtime.errors import RunError
from omr_runtime.models import load
from omr_runtime.train import launch, loop
from omr_runtime.train.checkpoint import FINAL, Checkpoints
from omr_runtime.train.launch import command
from omr_runtime.work import Shards, Work
from omrlang.cli import main
from omrlang.settle import num_devices
from omrlang.types import (
    AdamW,
    Amount,
    Checkpoint,
    Constant,
    Fsdp,
    Gpu,
    Hardware,
    Lora,
    Sharding,
    Zero,
)
from tests.training_parts import drawn_rows, fresh_folder, sft_spec, sft_work

ROOT = Path(__file__).parents[1]
WATCH = """
import json, os, sys
from omr_runtime.train.loop import Trainer
from omr_runtime.work import Work
import omr_runtime.stages.sft as stage

real = Trainer.step

def step(self, batches, *args, **kwargs):
    assert self.accelerator.num_processes == int(os.environ.get("EXPECTED_PROCESSES", "1"))
    ids = [id for batch in batches for id in batch.ids]
    line = json.dumps({"rank": self.rank, "micro": len(batches), "ids": ids})
    with open(os.environ["WATCH_FILE"] + f".{self.rank}", "a") as file:
        file.write(line + "\\n")
    return real(self, batches, *args, **kwargs)

Trainer.step = step
stage.run(Work.read(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_folder(tmp_path_factory.mktemp("models") / "base")


def _launch(work: Work, folder: Path) -> subprocess.CompletedProcess[str]:
    """The launch's own command, with the module swapped for one that notes each step."""
    path = folder / "work.json"
    path.write_text(work.model_dump_json())
    watch = folder / "watch.py"
    watch.write_text(WATCH)
    argv, env = command(work, path)
    at = argv.index("omr_runtime.stages")
    argv[at - 1 : at + 1] = [str(watch)]
    spec: Any = work.stage.spec
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        **env,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}",
        "WATCH_FILE": str(folder / "steps"),
        "EXPECTED_PROCESSES": str(spec.processes),
    }
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)


def _train(state: Path, base: Path, with_images: bool = True, **changes: Any) -> Work:
    settings: dict[str, Any] = {"batch": Amount(value=5, unit="packs"), "pack": 96, "steps": 4}
    # A large epsilon: Adam divides by the gradient's size, and rounding in small ones would show.
    settings |= {"optimizer": AdamW(eps=1e-3), "lr": Constant(peak=1e-2)}
    rows = drawn_rows(state, 30, with_images=with_images)
    work = sft_work(state, base, rows, sft_spec(**settings | changes))
    done = _launch(work, state)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return work


def _model(work: Work) -> dict[str, torch.Tensor]:
    model: Any = load(Path(work.state) / "models" / work.stage.fingerprint).model
    weights: dict[str, torch.Tensor] = model.state_dict()
    return weights


def _table(work: Work, name: str) -> list[dict[str, Any]]:
    shards = Shards(work.out).read()
    return [
        row for s in shards if name in s.files for row in pq.read_table(s.files[name]).to_pylist()
    ]


def _steps(work: Work, rank: int) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (Path(work.state) / f"steps.{rank}").read_text().splitlines()]


def _check_same(work: Work, expected: Work, atol: float) -> None:
    for (name, wanted), found in zip(_model(expected).items(), _model(work).values(), strict=True):
        torch.testing.assert_close(found, wanted, atol=atol, rtol=1e-3, msg=name)
    curves = [
        [m["value"] for m in _table(w, "metric") if m["name"] == "loss"] for w in (work, expected)
    ]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    norms = [
        [m["value"] for m in _table(w, "metric") if m["name"] == "grad_norm"]
        for w in (work, expected)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert _table(work, "use") == _table(expected, "use")


def _check_two_ranks(work: Work) -> None:
    """Both ranks took part, on different rows, with as many micro-batches."""
    for first, second in zip(_steps(work, 0), _steps(work, 1), strict=True):
        assert first["micro"] == second["micro"]
        assert not set(first["ids"]) & set(second["ids"]) - {""}
        assert set(first["ids"]) - {""}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Work:
    return _train(tmp_path_factory.mktemp("one"), base)


@pytest.mark.slow
def test_two_gloo_processes_equal_one(tmp_path: Path, base: Path, one: Work) -> None:
    two = _train(tmp_path, base, processes=2)
    _check_two_ranks(two)
    steps = [step for rank in (0, 1) for step in _steps(two, rank)]
    assert {step["micro"] for step in steps} == {3}, "five packs are spread over six"
    _check_same(two, one, atol=2e-5)


@pytest.mark.slow
def test_a_rank_without_rows_keeps_in_step(tmp_path: Path, base: Path) -> None:
    """One row a step: the other process has a dummy."""
    single = {"batch": Amount(value=1, unit="rows"), "steps": 3}
    two = _train(tmp_path / "two", base, processes=2, **single)
    assert all(
        "" in first["ids"] + second["ids"]
        for first, second in zip(_steps(two, 0), _steps(two, 1), strict=True)
    )
    _check_same(two, _train(tmp_path / "one", base, **single), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_on_two_processes_equals_plain_training(
    tmp_path: Path, base: Path, one: Work, stage: int
) -> None:
    pytest.importorskip("deepspeed")
    two = _train(tmp_path, base, processes=2, sharding=Zero(stage=stage))
    _check_two_ranks(two)
    _check_same(two, one, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sharding", [None, Zero(stage=2), Fsdp(reshard_after_forward=False)], ids=str
)
def test_two_processes_resume(
    tmp_path: Path, base: Path, one: Work, sharding: Sharding | None
) -> None:
    """Killed after a checkpoint, by a shard folder that cannot be written, then run again."""
    settings = {"processes": 2, "sharding": sharding, "checkpoint": Checkpoint(every=2)}
    work = _stopped_at_checkpoint(tmp_path, base, settings)
    assert list((tmp_path / "checkpoints").glob("*/step-000002"))
    (Path(work.out)).unlink()
    done = _launch(work, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(_steps(work, 0)) == 2 + 2, "only the steps after the checkpoint ran again"
    _check_same(work, one, atol=2e-5)


def _stopped_at_checkpoint(state: Path, base: Path, settings: dict[str, Any]) -> Work:
    """A run that dies between its first checkpoint and that checkpoint's shard: where the shard goes is a file."""
    common = {"batch": Amount(value=5, unit="packs"), "pack": 96, "steps": 4}
    common |= {"optimizer": AdamW(eps=1e-3), "lr": Constant(peak=1e-2)}
    work = sft_work(state, base, drawn_rows(state, 30), sft_spec(**common | settings))
    Path(work.out).write_text("in the way")
    assert _launch(work, state).returncode != 0
    return work


@pytest.mark.slow
def test_text_rows_and_image_rows_on_a_sharded_vision_model(tmp_path: Path, base: Path) -> None:
    """A rank without an image must still run the vision tower, or ZeRO-3 would hang."""
    pytest.importorskip("deepspeed")
    state = tmp_path
    rows = drawn_rows(state, 12)
    for row in rows[1:]:
        row["images"] = []
    spec = sft_spec(
        processes=2, sharding=Zero(stage=3), steps=2, batch=Amount(value=4, unit="packs")
    )
    work = sft_work(state, base, rows, spec)
    done = _launch(work, state)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize(("on_gpu", "backend"), [(True, "nccl"), (False, "gloo")])
def test_ranks_wait_for_one_that_takes_its_time(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, backend: str
) -> None:
    """One draws a long answer or asks a judge while the others are where they meet; torch would end them after ten minutes."""
    given: dict[str, Any] = {}

    def opened(**settings: Any) -> Any:
        given.update(settings)
        return SimpleNamespace(num_processes=2)

    monkeypatch.setattr(loop, "Accelerator", opened)
    monkeypatch.setattr(loop, "set_seed", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    loop.open_accelerator(sft_spec(processes=2))
    (handler,) = given["kwargs_handlers"]
    assert handler.backend == backend
    assert handler.timeout >= timedelta(hours=12)
    assert handler.to_kwargs()["timeout"] == handler.timeout, "accelerate passes it on"


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        RunError, match="tuned: more processes train on this machine than it has GPUs, 2; set"
    ):
        loop.open_accelerator(sft_spec(processes=3))


def test_as_many_are_started_as_the_plan_counts(tmp_path: Path) -> None:
    """Also on a declared machine without a GPU, where the larger number counts."""
    for count, processes in ((1, 3), (3, 1), (3, 3)):
        desk = Hardware(name="desk", gpu=None, count=count)
        spec = sft_spec(hardware=desk, processes=processes)
        assert num_devices(spec) == 3
        argv, _ = command(sft_work(tmp_path, tmp_path, [], spec), "w.json")
        assert "--nproc-per-node=3" in argv


ON_A_GPU = """omr 1

use std.formats
use std.gpus

hardware card = 1 * gpus.h100_80gb

model teacher = scripted("shapes", right = 100%)

model tiny = fresh("qwen2_5_vl", layers = 1, hidden = 32, heads = 2, vision_layers = 1, vision_hidden = 32) {
  precision = fp32
}

source puzzles from synthetic("shapes", n = 4, seed = 1)

sample traces from puzzles with teacher {
  n           = 1
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

sft tuned from traces with tiny on card {
  prompt    = formats.think_answer_short
  pack      = 512
  batch     = 1 pack
  steps     = 1
  lr        = constant(1e-3)
  precision = fp32
}
"""


@pytest.mark.parametrize("there", [False, True])
def test_who_counts_on_a_gpu_is_told_where_there_is_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    there: bool,
) -> None:
    """It trains all the same: a small recipe is tried on a laptop. GPUs are files here."""
    monkeypatch.setattr(launch, "GPU_FILES", (str(tmp_path / "nvidia[0-9]*"),))
    if there:
        (tmp_path / "nvidia0").touch()
    recipe = tmp_path / "r.omr"
    recipe.write_text(ON_A_GPU)
    assert main(["run", str(recipe), "--state", str(tmp_path / ".omr")]) == 0
    said = "tuned trains on the CPU: this machine has no GPU, its hardware `card` has 1"
    told = capsys.readouterr()
    assert (said in told.out + told.err) == (not there)


def test_commands(tmp_path: Path) -> None:
    def argv(**changes: Any) -> tuple[list[str], dict[str, str]]:
        return command(sft_work(tmp_path, tmp_path, [], sft_spec(**changes)), "w.json")

    assert argv() == ([sys.executable, "-m", "omr_runtime.stages", "w.json"], {})
    several, env = argv(processes=3)
    assert "--nproc-per-node=3" in several
    assert several[-3:] == ["-m", "omr_runtime.stages", "w.json"]
    assert "DS_ACCELERATOR" not in env
    assert argv(processes=2, sharding=Zero(stage=2))[1]["DS_ACCELERATOR"] == "cpu"
    sharded, env = argv(processes=2, sharding=Fsdp())
    assert "--nproc-per-node=2" in sharded
    assert set(env) == {"OMP_NUM_THREADS"}, "nothing of DeepSpeed's"
    assert "--nproc-per-node=1" in argv(sharding=Fsdp())[0]
    gpus = Hardware(
        name="node", gpu=Gpu(name="g", memory_gib=80, tflops=300, bandwidth_tb_s=2), count=8
    )
    sharded, env = argv(hardware=gpus, sharding=Zero(stage=3))
    assert "--nproc-per-node=8" in sharded
    assert "DS_ACCELERATOR" not in env


def test_checkpoints_keep_the_newest(tmp_path: Path) -> None:
    class Alone:
        is_main = True

    for step in (2, 4, 6):
        (tmp_path / f"step-{step:06d}").mkdir()
    checkpoints = Checkpoints(Alone(), tmp_path, tmp_path / "out", keep=2)  # type: ignore[arg-type]
    checkpoints._drop_old()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000006"]
    (tmp_path / FINAL).mkdir()
    checkpoints.close()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["step-000006"], "the trained model is the other one"
    checkpoints.keep = "all"
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    checkpoints.keep = 1
    checkpoints.close()
    assert not tmp_path.exists()


# ---- adapters ------------------------------------------------------------------------------------------------------

ADAPTER = {"adapter": Lora(rank=4, alpha=8)}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Work:
    return _train(tmp_path_factory.mktemp("adapted"), base, **ADAPTER)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", [None, Zero(stage=2), Zero(stage=3), Fsdp()], ids=str)
def test_adapters_on_two_processes_resume_and_equal_one(
    tmp_path: Path, base: Path, adapted: Work, sharding: Sharding | None
) -> None:
    settings = {"processes": 2, "sharding": sharding, "checkpoint": Checkpoint(every=2), **ADAPTER}
    work = _stopped_at_checkpoint(tmp_path, base, settings)
    (checkpoint,) = (tmp_path / "checkpoints").glob("*/step-000002")
    held = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    whole = sum(weight.nbytes for weight in _model(adapted).values())
    assert held < whole, "frozen weights are in no checkpoint"
    (Path(work.out)).unlink()
    done = _launch(work, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(_steps(work, 0)) == 2 + 2, "only the steps after the checkpoint ran again"
    _check_same(work, adapted, atol=2e-5)
    own = [
        load_file(_folder(one) / "adapter" / "adapter_model.safetensors") for one in (work, adapted)
    ]
    assert own[0].keys() == own[1].keys()


def _folder(work: Work) -> Path:
    return Path(work.state) / "models" / work.stage.fingerprint
