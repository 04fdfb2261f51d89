"""Reinforcement learning with vLLM in a process of its own: it draws what it draws in the trainer's, and its end is no hang."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from test_rl import launch, metric, rl_spec, rl_work, table, weights
from training_parts import drawn_rows, fresh_folder

from omr_runtime.engines.apart.engine import EngineApart
from omr_runtime.engines.decode import Ask, Draw, Sampled
from omr_runtime.engines.vllm import VllmLimits, weights_of
from omr_runtime.keeper import parents
from omr_runtime.train.apart import open_vllm
from omr_runtime.train.launch import command
from omr_runtime.work import Work
from omrlang.types import Constant, Vllm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = fresh_folder(tmp_path_factory.mktemp("base"), "qwen2", hidden=128)
    return folder


def work_of(
    state: Path, base: Path, *, apart: bool, steps: int = 4, behind: int = 0, processes: int = 1
) -> Work:
    spec = rl_spec(
        steps=steps,
        behind=behind,
        processes=processes,
        engine=Vllm(apart=apart),
        precision="bf16",
        lr=Constant(peak=3e-3),
    )
    return rl_work(state, base, drawn_rows(state, 8, with_images=False), spec)


@pytest.mark.parametrize("behind", [0, 1])
def test_it_draws_and_learns_what_it_does_in_the_trainers_process(
    tmp_path: Path, base: Path, behind: int
) -> None:
    """After pushed weights too: three of four batches are drawn with such."""
    here, there = (
        work_of(tmp_path / name, base, apart=apart, behind=behind)
        for name, apart in (("here", False), ("there", True))
    )
    for work in (here, there):
        launch(work)
    one, other = table(here, "rollout"), table(there, "rollout")
    assert len(one) == 4 * 4 * 4
    key = ("step", "row", "sample_index", "response", "num_tokens", "reward")
    assert [[line[k] for k in key] for line in one] == [[line[k] for k in key] for line in other]
    for mine, theirs in zip(one, other, strict=True):
        assert theirs["mean_logprob"] == pytest.approx(mine["mean_logprob"], abs=1e-3)
    for name, tensor in weights(here).items():
        torch.testing.assert_close(weights(there)[name], tensor, atol=1e-3, rtol=0)


def test_two_processes_have_an_engine_each(tmp_path: Path, base: Path) -> None:
    """Inside or apart: each draws for its own process, is given that one's weights, and the model is saved at the end."""
    here, there = (
        work_of(tmp_path / name, base, apart=apart, steps=3, processes=2)
        for name, apart in (("here", False), ("there", True))
    )
    for work in (here, there):
        launch(work)
        assert weights(work)
        found = metric(work, "rollout_kl")
        assert found
        assert max(found) < 5e-3, "each engine has the weights that are trained"
    key = ("step", "row", "sample_index", "response", "num_tokens", "reward")
    one, other = (
        [[line[k] for k in key] for line in table(work, "rollout")] for work in (here, there)
    )
    assert len(one) == 3 * 4 * 4
    assert one == other


def greedy(folder: Path, tensor_parallel: int, push: Path | None) -> list[Sampled]:
    """What an engine over so many devices says, of a CPU worker processes; with new weights where they are given."""
    settings = Vllm(apart=True, tensor_parallel=tensor_parallel)
    opener = partial(open_vllm, folder, "fp32", VllmLimits(256, max_num_seqs=4), settings)
    engine = EngineApart(
        opener, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
    )
    found: list[Sampled] = []
    try:
        if push is not None:
            engine.update_weights(weights_of(push))
        asks = [Ask([5, 6, 7, 8], (1,)), Ask([9, 3], (2,))]
        engine.roll(asks, Draw(0.0, 8, frozenset()), found.append)
    finally:
        engine.close()
    return sorted(found, key=lambda one: one.ask)


def test_new_weights_reach_every_worker_of_an_engine(tmp_path: Path, base: Path) -> None:
    other: Path = fresh_folder(tmp_path / "other", "qwen2", hidden=128, seed=4)
    pushed, fresh = greedy(base, 2, other), greedy(other, 1, None)
    for one, same in zip(pushed, fresh, strict=True):
        assert one.token_ids == same.token_ids
        assert one.logprobs == pytest.approx(same.logprobs, abs=1e-3)


def engine_of(trainer: subprocess.Popen[str]) -> int:
    """The process that the trainer started."""
    end = time.monotonic() + 120
    while time.monotonic() < end and trainer.poll() is None:
        for pid, parent in parents().items():
            if (
                parent == trainer.pid
                and b"apart.serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ):
                return pid
        time.sleep(0.1)
    raise AssertionError("no engine was started")


def started(work: Work, log: Path) -> subprocess.Popen[str]:
    path = Path(work.state) / "work.json"
    path.write_text(work.model_dump_json())
    argv, env = command(work, path)
    root = Path(__file__).parents[1]
    paths = {"PYTHONPATH": f"{root}:{root / 'runtime'}", "OMP_NUM_THREADS": "1"}
    with open(log, "w") as file:
        return subprocess.Popen(
            argv, env=os.environ | paths | env, stdout=file, stderr=file, text=True
        )


def test_an_engine_that_is_killed_ends_the_run_and_another_goes_on(
    tmp_path: Path, base: Path
) -> None:
    steps = 400
    work = work_of(tmp_path, base, apart=True, steps=steps)
    trainer = started(work, tmp_path / "log")
    engine = engine_of(trainer)
    checkpoints = tmp_path / "checkpoints"
    while not list(checkpoints.glob("**/training.json")):
        assert trainer.poll() is None, (tmp_path / "log").read_text()[-3000:]
        time.sleep(0.1)
    os.kill(engine, signal.SIGKILL)
    assert trainer.wait(60) == 5
    reason = json.loads((Path(work.out) / "error.json").read_text())
    assert reason["exit_code"] == 5
    assert "the engine's process was killed by SIGKILL" in reason["message"]
    done = max(line["step"] for line in table(work, "rollout"))
    assert 0 < done < steps
    shorter = work.stage.spec.model_copy(update={"steps": done + 2})
    again = work.model_copy(update={"stage": work.stage.model_copy(update={"spec": shorter})})
    launch(again)
    assert max(line["step"] for line in table(again, "rollout")) == done + 2
