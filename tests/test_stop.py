"""A training that is told to stop saves after the step that runs and ends with 5; the next run goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import drive
import plans
import pytest
import torch
from training_parts import of_a_clock

from omr_runtime import lineage
from omr_runtime.errors import Resumable
from omr_runtime.lock import marked
from omr_runtime.models import load
from omr_runtime.stages import rl as rl_stage
from omr_runtime.stages import sft as sft_stage
from omr_runtime.store import State, read_index
from omr_runtime.train.metrics import RunLog
from omr_runtime.work import Shards, Work
from omrlang.schema import Spec
from omrlang.types import Amount, Checkpoint, Cosine, Transformers
from tests.test_rl import rl_spec, rl_work
from tests.training_parts import drawn_rows, fresh_folder, sft_spec, sft_work

NEVER = Checkpoint(every=1_000)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_folder(tmp_path_factory.mktemp("models") / "base")


def table(shards: Shards, name: str) -> list[dict[str, Any]]:
    files = [shard.files[name] for shard in shards.read() if name in shard.files]
    return lineage.read_parquet(files) if files else []


def curve(shards: Shards) -> list[tuple[int, str, float]]:
    """Every figure but times."""
    return [
        (line["step"], line["name"], line["value"])
        for line in table(shards, "metric")
        if not of_a_clock(line["name"])
    ]


def assert_equal(found: Shards, whole: Shards) -> None:
    assert curve(found) == curve(whole)
    for name in ("use", "rollout", "dropped"):
        assert table(found, name) == table(whole, name)


def assert_same_weights(found: Path, whole: Path) -> None:
    one, other = load(found).model, load(whole).model
    assert one is not None
    assert other is not None
    for (name, expected), tensor in zip(
        other.state_dict().items(), one.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, tensor), name


# ---- within a process ----------------------------------------------------------------------------------------------


def signal_at(patch: pytest.MonkeyPatch, step: int, how: str, work: Work) -> None:
    """While the figures of ``step`` are taken down: a signal as Slurm sends it, or the driver's file."""
    real = RunLog.step

    def then(self: RunLog, at: int, *rest: Any) -> None:
        real(self, at, *rest)
        if at == step and how == "file":
            work.stop_file.touch()
        elif at == step:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(RunLog, "step", then)


def sft_of(state: Path, base: Path) -> Work:
    spec = sft_spec(steps=7, lr=Cosine(peak=1e-3), checkpoint=NEVER)
    return sft_work(state, base, drawn_rows(state, 24), spec)


def rl_of(state: Path, base: Path) -> Work:
    spec = rl_spec(steps=4, lr=Cosine(peak=1e-2), checkpoint=NEVER)
    return rl_work(state, base, drawn_rows(state, 10), spec)


def behind_of(state: Path, base: Path) -> Work:
    """The batch of the next step is drawn when the signal comes."""
    spec = rl_spec(steps=4, lr=Cosine(peak=1e-2), checkpoint=NEVER, behind=1)
    return rl_work(state, base, drawn_rows(state, 10), spec)


@pytest.mark.parametrize(
    ("make", "stage", "at", "saved", "how"),
    [
        pytest.param(sft_of, sft_stage, 3, 3, "signal", id="sft, signal"),
        pytest.param(sft_of, sft_stage, 5, 5, "file", id="sft, file"),
        pytest.param(rl_of, rl_stage, 2, 3, "signal", id="rl, signal"),
        pytest.param(rl_of, rl_stage, 1, 2, "file", id="rl, file"),
        pytest.param(behind_of, rl_stage, 2, 3, "signal", id="rl one behind, signal"),
        pytest.param(behind_of, rl_stage, 1, 2, "file", id="rl one behind, file"),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    stage: Any,
    at: int,
    saved: int,
    how: str,
) -> None:
    whole, stopped = make(tmp_path / "whole", base), make(tmp_path / "stopped", base)
    stage.run(whole)
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        signal_at(patch, at, how, stopped)
        with pytest.raises(Resumable, match=rf"asked to stop; saved after step {saved} of "):
            stage.run(stopped)
    assert signal.getsignal(signal.SIGTERM) is handler
    state = State(Path(stopped.state))
    checkpoints = state.checkpoints(stopped.stage.fingerprint)
    assert [path.name for path in checkpoints.iterdir()] == [f"step-{saved:06d}"]
    stopped.stop_file.unlink(missing_ok=True)
    stage.run(stopped)
    assert_equal(Shards(stopped.out), Shards(whole.out))
    models = [Path(work.state) / "models" / work.stage.fingerprint for work in (stopped, whole)]
    assert_same_weights(*models)


def test_a_signal_in_the_last_step_ends_as_always(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for work, stage, last in ((sft_of(tmp_path / "a", base), sft_stage, 7), (rl_of(tmp_path / "b", base), rl_stage, 4)):  # fmt: skip
        with monkeypatch.context() as patch:
            signal_at(patch, last, "signal", work)
            stage.run(work)
        assert (Path(work.out) / "done.json").exists()


def test_nothing_is_saved_before_the_first_step(tmp_path: Path, base: Path) -> None:
    work = sft_of(tmp_path, base)
    work.stop_file.touch()
    with pytest.raises(Resumable, match="asked to stop; before its first step"):
        sft_stage.run(work)
    assert not State(tmp_path).checkpoints(work.stage.fingerprint).exists()


# ---- a driver ------------------------------------------------------------------------------------------------------


def training(kind: str, processes: int) -> list[Spec]:
    """Steps enough that one is in the middle of it when the signal comes."""
    common = {
        "seed": 7, "rows": "puzzles", "model": plans.TINY, "prompt": plans.PROMPT, "precision": "fp32",
        "lr": Cosine(peak=1e-3), "checkpoint": NEVER, "processes": processes,
    }  # fmt: skip
    if kind == "sft":
        more = {"name": "tuned", "pack": 128, "batch": Amount(value=4, unit="packs"), "steps": 60}
        return [plans.shapes("puzzles", 40), plans.Sft.model_validate(common | more)]
    spec = rl_spec().model_dump() | common | {"name": "tuned", "steps": 14}
    spec |= {"engine": Transformers(batch=8), "max_prompt": 128, "behind": int(kind == "behind")}
    return [plans.shapes("puzzles", 40), plans.Rl.model_validate(spec)]


def mark_of(state: State) -> str:
    index = read_index(state)["stages"]
    return next(mark for mark, entry in index.items() if entry["name"] == "tuned")


def wait_for_step(process: subprocess.Popen[str], state: State, step: int) -> None:
    """Until so many steps are done, or the run has ended."""
    end = time.monotonic() + 300.0
    while time.monotonic() < end and process.poll() is None:
        for path in state.folder.glob("work/*.progress"):
            lines = [line for line in path.read_text().splitlines() if '"steps"' in line]
            if lines and json.loads(lines[-1])["done"] >= step:
                return
        time.sleep(0.01)
    raise AssertionError(f"no step was made: {drive.finish(process)}")


def ranks(state: State) -> list[int]:
    """The processes of the stage itself, without what starts them."""
    found = []
    for pid in marked(state.lock):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"omr_runtime.stages" in command and b"torch.distributed.run" not in command:
                found += [pid] if not any(word.endswith(b"keeper.py") for word in command) else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "processes", "whom"),
    [
        ("sft", 1, "driver"),
        ("sft", 2, "one rank"),
        ("rl", 2, "everybody"),
        ("behind", 2, "everybody"),
    ],
)
def test_a_run_that_gets_sigterm_goes_on_where_it_stopped(
    tmp_path: Path, kind: str, processes: int, whom: str
) -> None:
    """``everybody`` is what Slurm does to a job step: driver, keeper, launcher and ranks."""
    specs = training(kind, processes)
    calm, state = State(tmp_path / "calm"), State(tmp_path / "state")
    assert drive.finish(drive.start(specs, calm.folder, tmp_path))[0] == 0
    process = drive.start(specs, state.folder, tmp_path)
    wait_for_step(process, state, 3)
    hit = {"driver": [process.pid], "one rank": ranks(state)[-1:]}
    assert len(ranks(state)) == processes
    for pid in hit.get(whom, [*marked(state.lock), process.pid]):
        os.kill(pid, signal.SIGTERM)
    code, out = drive.finish(process)
    assert code == 5, out
    assert "sft.tuned: asked to stop; saved after step" in out.replace("rl.tuned", "sft.tuned")
    assert "the same command goes on" in out
    assert "Traceback" not in out
    assert marked(state.lock) == []
    (saved,) = state.checkpoints(mark_of(state)).iterdir()
    step = int(saved.name.removeprefix("step-"))
    assert 3 <= step < (60 if kind == "sft" else 14)
    code, out = drive.finish(drive.start(specs, state.folder, tmp_path))
    assert code == 0, out
    mark = mark_of(state)
    assert_equal(Shards(state.artifact(mark)), Shards(calm.artifact(mark)))
    assert_same_weights(state.model(mark), calm.model(mark))


@pytest.mark.slow
def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    process = drive.start(training("rl", 1), state.folder, tmp_path)
    wait_for_step(process, state, 1)
    for pid in ranks(state):
        os.kill(pid, signal.SIGSTOP)  # a step that never ends
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # an echo of the first
    time.sleep(1.5)
    assert process.poll() is None, "it waits for the step"
    process.send_signal(signal.SIGTERM)
    code, out = drive.finish(process)
    assert code == 5, out
    assert "a second signal stops at once" in out
    assert marked(state.lock) == []
