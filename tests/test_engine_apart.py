"""An engine in a process of its own: what goes over and comes back, new weights in pieces, and either process killed. The engine is
a script without a model here (``scripted_roller``); ``test_rl_apart`` has vLLM itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import scripted_roller
import torch
from PIL import Image

from omr_runtime.engines.apart import engine as apart
from omr_runtime.engines.apart.buckets import cut, halves_of, joined, new_memory
from omr_runtime.engines.apart.engine import EngineApart, devices_apart
from omr_runtime.engines.apart.messages import Bucket
from omr_runtime.engines.decode import Ask, Draw, Sampled
from omr_runtime.engines.protocol import EngineDied
from omr_runtime.engines.roller import Roller
from omr_runtime.errors import RunError

TESTS = Path(__file__).parent
PATH = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", ""), *sys.path])
DRAW = Draw(1.0, 8, frozenset())
HALF = 64

Opened = Callable[..., EngineApart]


@pytest.fixture
def opened() -> Iterator[Opened]:
    found: list[EngineApart] = []

    def start(opener: Callable[[], Roller] = scripted_roller.ScriptedRoller) -> EngineApart:
        found.append(EngineApart(opener, {"PYTHONPATH": PATH}, HALF))
        return found[-1]

    yield start
    for engine in found:
        engine.close()
        assert engine.process.returncode is not None


def asks(count: int) -> list[Ask]:
    return [Ask([n, n + 1], (10 * n, 10 * n + 1)) for n in range(count)]


def drawn(engine: EngineApart, given: list[Ask], draw: Draw = DRAW) -> list[Sampled]:
    found: list[Sampled] = []
    engine.roll(given, draw, found.append)
    return found


def ended(pid: int, within_s: float = 20.0) -> bool:
    """Whether a process is gone, or waits only for somebody to hear of it."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


# ---- what goes over ----------------------------------------------------------------------------------------------


def test_every_sample_of_every_prompt_comes_back(opened: Opened) -> None:
    """Also of more prompts than the engine is given at once, and of none, twice over."""
    engine = opened()
    assert (engine.name, engine.version) == ("a script", "1")
    for count in (100, 0, 3):
        found = drawn(engine, asks(count))
        assert [(one.ask, one.sample) for one in found] == [
            (n, k) for n in range(count) for k in (0, 1)
        ]
        assert [one.token_ids for one in found[2:4]] == ([[1, 2, 10], [1, 2, 11]] if count else [])


def test_pictures_go_over_and_what_the_trainers_model_is_given_does_not(opened: Opened) -> None:
    inputs = {"pixel_values": torch.zeros(4)}
    ask = Ask([1], (5,), inputs, "one <image>", (Image.new("RGB", (21, 9)),))
    assert drawn(opened(), [ask])[0].token_ids == [1, 5, 21]
    assert ask.inputs is inputs


def test_samples_come_as_they_end(opened: Opened) -> None:
    engine = opened(scripted_roller.slow)
    times: list[float] = []
    engine.roll(asks(5), DRAW, lambda _: times.append(time.monotonic()))
    assert times[-1] - times[0] > 0.3


def test_an_engine_that_is_left_is_free_again(opened: Opened) -> None:
    engine = opened(scripted_roller.slow)
    found: list[Sampled] = []

    def third(one: Sampled) -> None:
        found.append(one)
        if len(found) == 3:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        engine.roll(asks(200), DRAW, third)
    assert time.monotonic() - start < 10, "400 samples take 20 seconds"
    engine.update_weights([("a", torch.ones(3))])
    assert [one.logprobs[0] for one in drawn(engine, asks(2))] == [3.0] * 4


# ---- weights -----------------------------------------------------------------------------------------------------


def some_weights() -> list[tuple[str, torch.Tensor]]:
    """Smaller and larger than a half of the memory, of several types, empty, without dimensions, and not contiguous."""
    return [
        ("small", torch.arange(3.0)),
        ("large", torch.arange(300, dtype=torch.bfloat16).view(3, 100)),
        ("none", torch.zeros(0, 4)),
        ("one", torch.tensor(7)),
        ("exact", torch.arange(HALF // 4, dtype=torch.int32)),
        ("across", torch.arange(12.0, dtype=torch.float64).view(3, 4).t()),
    ]


@pytest.mark.parametrize("room", [1, 3, 64, 1 << 20])
def test_weights_are_the_same_after_any_cuts(room: int) -> None:
    descriptor = new_memory(room)
    halves = halves_of(descriptor)
    os.close(descriptor)

    def buckets() -> Iterator[Bucket]:
        for number, group in enumerate(cut(some_weights(), room)):
            assert sum(piece.size for piece, _ in group) <= room
            for piece, data in group:
                halves[number % 2][piece.place : piece.place + piece.size].copy_(data)
            yield Bucket(number % 2, tuple(piece for piece, _ in group))

    found = list(joined(buckets(), halves))
    for half in halves:
        half.zero_()
    assert [name for name, _ in found] == [name for name, _ in some_weights()]
    for (_, one), (_, other) in zip(found, some_weights(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_new_weights_are_drawn_with(opened: Opened) -> None:
    engine = opened()
    assert drawn(engine, asks(1))[0].logprobs[0] == 0.0
    for factor in (1, 2):
        weights = [(name, tensor * factor) for name, tensor in some_weights()]
        engine.update_weights(iter(weights))
        total = sum(float(tensor.double().sum()) for _, tensor in weights)
        assert drawn(engine, asks(1))[0].logprobs[0] == total
    engine.update_weights([])
    assert drawn(engine, asks(1))[0].logprobs[0] == 0.0


def test_a_model_never_stands_there_a_second_time() -> None:
    """512 MiB go over in halves of one, a tensor of 8 at a time; what an allocator keeps of those that are gone differs by machine."""
    one = 2**20
    engine = EngineApart(scripted_roller.Forgets, {"PYTHONPATH": PATH}, one)
    try:
        before = drawn(engine, asks(1))[0].token_ids[0]
        engine.update_weights(
            (str(n), torch.full((8 * one,), n, dtype=torch.uint8)) for n in range(64)
        )
        assert drawn(engine, asks(1))[0].token_ids[0] - before < 64 * one
    finally:
        engine.close()


# ---- either process ends -----------------------------------------------------------------------------------------


def test_an_engine_that_is_killed_is_told_with_what_it_last_said(opened: Opened) -> None:
    engine = opened(scripted_roller.slow)
    found: list[Sampled] = []

    def kill(one: Sampled) -> None:
        found.append(one)
        if len(found) == 3:
            engine.process.kill()

    with pytest.raises(
        EngineDied,
        match=r"killed by SIGKILL, perhaps for want of memory; it last said: drew \d+/\d",
    ):
        engine.roll(asks(200), DRAW, kill)
    with pytest.raises(EngineDied, match="killed by SIGKILL"):
        engine.update_weights(some_weights())


def test_an_engine_that_gives_up_says_why(opened: Opened) -> None:
    with pytest.raises(EngineDied, match=r"^the script has no more$"):
        drawn(opened(), asks(2), replace(DRAW, max_tokens=13))


def test_what_an_engine_refuses_is_no_fault_of_it(opened: Opened) -> None:
    """So it ends with 1, and no re-run is proposed."""
    with pytest.raises(RunError, match=r"^the script shows no such thing$") as found:
        drawn(opened(), asks(2), replace(DRAW, max_tokens=14))
    assert found.value.exit_code == 1


@pytest.mark.parametrize(
    ("opener", "reason", "exit_code"),
    [
        (scripted_roller.refuses, "^this model is not served here$", 1),
        (scripted_roller.breaks, "^the engine's process failed: KeyError: 'a mistake'$", 5),
        (test_every_sample_of_every_prompt_comes_back, "ended with status 1; it last said: .*", 5),
    ],
    ids=["refuses", "breaks", "is not there"],
)
def test_an_engine_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, opener: Callable[[], Roller], reason: str, exit_code: int
) -> None:
    """The last cannot be imported there, where no folder of tests is on the path."""
    path = (
        PATH
        if opener.__module__ == "scripted_roller"
        else os.pathsep.join(p for p in PATH.split(os.pathsep) if p != str(TESTS))
    )
    with pytest.raises(RunError, match=reason) as found:
        EngineApart(opener, {"PYTHONPATH": path}, HALF)
    assert found.value.exit_code == exit_code


def test_what_stops_a_whole_job_does_not_stop_the_engine(opened: Opened) -> None:
    """Slurm sends SIGTERM to every process; the trainer makes its step and saves, which takes the engine."""
    engine = opened(scripted_roller.slow)
    os.kill(engine.process.pid, signal.SIGTERM)
    assert len(drawn(engine, asks(3))) == 6


TRAINER = """
import sys, threading, time
import scripted_roller
from omr_runtime.engines.apart.engine import EngineApart
from omr_runtime.engines.decode import Ask, Draw
engine = EngineApart(scripted_roller.slow, {}, 64)
print(engine.process.pid, flush=True)
engine.roll([Ask([1], tuple(range(10_000)))], Draw(1.0, 8, frozenset()), lambda one: None)
"""


def test_an_engine_ends_with_its_trainer() -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": PATH},
        text=True,
    )
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    assert not ended(pid, 0.3)
    trainer.kill()
    trainer.wait()
    assert ended(pid)


def test_it_is_no_rank_of_the_training(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    told = Path(f"/proc/{opened().process.pid}/environ").read_bytes().split(b"\0")
    assert not [
        one for one in told if one.startswith(tuple(name.encode() for name in apart.OF_THE_TRAINER))
    ]


def test_gpus_are_shared_out() -> None:
    """Of 8, 4 train and 4 draw; with 3 an engine 2 and 6; of those that a scheduler gave to this job."""
    assert [devices_apart(rank, 4, 1, list("01234567")) for rank in range(4)] == [
        ["4"],
        ["5"],
        ["6"],
        ["7"],
    ]
    assert devices_apart(1, 2, 1, ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]) == ["GPU-d"]
    assert devices_apart(0, 1, 2, ["0"]) == []
