"""Killing the driver alone with SIGKILL, again and again: the same rows in the end, and nobody left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from omr_runtime import lineage
from omr_runtime.lock import marked
from omr_runtime.store import State, read_index
from omr_runtime.work import Shards

ROOTS = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "runtime")]

DATA = """\
omr 1

use std.formats

seed = 5

model teacher = scripted("shapes", right = 70%)

source first from synthetic("shapes", n = 1_200, seed = 1)

source second from synthetic("shapes", n = 900, seed = 2)

mix questions from [first: all, second: up_to(700)]

sample traces from questions with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter accepted from traces {
  keep    = format_ok and answer_matches
  at_most = 1 per parent
}

mix last from [accepted: all, second: 50]
"""

TRAINING = (
    DATA.replace("1_200", "80").replace("900", "60").replace("up_to(700)", "up_to(40)")
    + """
model tiny = fresh("qwen2_5_vl", layers = 1, hidden = 32, heads = 2, vision_layers = 1, vision_hidden = 32, vocabulary = shapes, seed = 1) {
  precision = fp32
}

sft cold_start from accepted with tiny {
  prompt    = formats.think_answer_short
  pack      = 512
  batch     = 1 pack
  epochs    = 2
  lr        = constant(1e-3)
  precision = fp32
  processes = 2
  checkpoint { every = 4 steps, keep = 1 }
}

rl reasoner from questions with cold_start {
  prompt       = formats.think_answer_short
  algorithm    = gspo(clip = [3e-4, 4e-4])
  reward       = 0.9 * answer_matches + 0.1 * format_score
  group        = 2
  batch        = 4 prompts
  steps        = 6
  lr           = constant(1e-4)
  temperature  = 1.0
  max_prompt   = 128
  max_response = 24
  precision    = fp32
  engine       = transformers(batch = 8)
  checkpoint { every = 2 steps, keep = 1 }
}

eval after from [second] with reasoner {
  prompt      = formats.think_answer_short
  temperature = 0
  max_tokens  = 24
  engine      = transformers(batch = 32)
}
"""
)


DATA_STAGES = (
    "source.first",
    "source.second",
    "mix.questions",
    "sample.traces",
    "filter.accepted",
    "mix.last",
)


def start(recipe: Path, state: State) -> subprocess.Popen[bytes]:
    """A driver as a person starts it; what it prints goes to a file beside the state."""
    code = "import sys; from omrlang.cli import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS), "OMP_NUM_THREADS": "1"}
    with open(output(state), "wb") as out:
        return subprocess.Popen(
            [sys.executable, "-c", code, "run", str(recipe), "--state", str(state.folder)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
        )


def output(state: State) -> Path:
    return state.folder.with_suffix(".out")


def finish(recipe: Path, state: State) -> str:
    """Run to the end; what was printed."""
    code = start(recipe, state).wait(timeout=900)
    out = output(state).read_text()
    assert code == 0, out
    return out


def assert_nobody_left(state: State, seconds: float = 10.0) -> None:
    """All processes that the killed driver started are gone, by the mark in their environment."""
    end = time.monotonic() + seconds
    while (left := marked(state.lock)) and time.monotonic() < end:
        time.sleep(0.02)
    assert left == [], [
        Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left if Path(f"/proc/{pid}").exists()
    ]


def tables(state: State) -> dict[str, dict[str, Counter[str]]]:
    """By stage and table: the lines of all shards with how often each occurs, as the lineage has them too."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for mark, entry in read_index(state)["stages"].items():
        assert entry["status"] == "done"
        by_table: dict[str, Counter[str]] = {}
        for shard in Shards(state.artifact(mark)).read():
            for table, file in shard.files.items():
                lines = lineage.read_parquet([file])
                by_table.setdefault(table, Counter()).update(
                    json.dumps(line, sort_keys=True) for line in lines
                )
        found[entry["name"]] = by_table
    return found


def committed(state: State) -> dict[str, int]:
    """Lines in the lineage by table."""
    with lineage.read(state.lineage) as reader:
        names = ("row", "edge", "verdict", "dropped", "origin", "use", "rollout", "metric")
        return {name: reader.ask(f'select count(*) as n from "{name}"')[0]["n"] for name in names}


def shards_now(state: State) -> dict[str, int]:
    """What is committed, with when it was written: none of it is ever made or sampled again."""
    store = state.folder / "store"
    found = [*store.glob("*/shard-*.json"), *store.glob("samples/*/part-*.parquet")]
    return {str(path): path.stat().st_mtime_ns for path in found}


def sampled(state: State) -> Counter[str]:
    """How often each sample stands in the ledger."""
    found: Counter[str] = Counter()
    for file in sorted(state.folder.glob("store/samples/*/part-*.parquet")):
        found.update(
            f"{file.parent.name} {line['key']} {line['index']}"
            for line in lineage.read_parquet([file])
        )
    return found


def kill_in(recipe: Path, state: State, address: str, delay_s: float) -> bool:
    """Run until a stage begins, and a moment longer; then kill the driver. False when the run ended before."""
    process = start(recipe, state)
    while f"] {address}" not in output(state).read_text():
        if process.poll() is not None:
            break
        time.sleep(0.01)
    try:
        process.wait(timeout=delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode in (0, -signal.SIGKILL), output(state).read_text()
    return process.returncode != 0


def is_done(state: State, address: str) -> bool:
    name = address.partition(".")[2]
    stages = read_index(state)["stages"].values()
    return any(entry["name"] == name and entry["status"] == "done" for entry in stages)


def kill_often(
    recipe: Path, calm: State, state: State, times: dict[str, int], seed: int
) -> Counter[str]:
    """Kill the driver in each stage up to so many times; how often each stage was hit.

    The moment is drawn from the time that the stage took in the calm run, so that a quick machine is hit as
    often as a slow one.
    """
    rng = random.Random(seed)
    took = {entry["name"]: entry["seconds"] for entry in read_index(calm)["stages"].values()}
    kills: Counter[str] = Counter()
    for address, most in times.items():
        longest_s = 0.8 * took[address.partition(".")[2]]
        for _ in range(most):
            if is_done(state, address):
                break  # a run would go on to the end of the recipe, and nothing were left to kill
            before = shards_now(state)
            kills[address] += kill_in(recipe, state, address, rng.uniform(0.0, longest_s))
            assert_nobody_left(state)
            after = shards_now(state)
            assert {path: after.get(path) for path in before} == before, (
                "committed work is never made again"
            )
    return kills


def assert_equal(calm: State, killed: State) -> None:
    """The same rows in every table of every stage, in the store, in the ledger and in the lineage."""
    expected, found = tables(calm), tables(killed)
    assert expected.keys() == found.keys()
    for name, by_table in expected.items():
        for table in by_table.keys() - {"metric"}:
            assert found[name][table] == by_table[table], f"{name}: {table}"
    assert sampled(killed) == sampled(calm)
    assert set(sampled(killed).values()) <= {1}, "no sample twice in the ledger"
    assert committed(killed) == committed(calm), "no line lost or double in the lineage"


@pytest.mark.slow
def test_killed_while_it_makes_data(tmp_path: Path) -> None:
    recipe = tmp_path / "data.omr"
    recipe.write_text(DATA)
    calm, killed = State(tmp_path / "calm"), State(tmp_path / "killed")
    finish(recipe, calm)
    kills = kill_often(recipe, calm, killed, dict.fromkeys(DATA_STAGES, 4), seed=1)
    finish(recipe, killed)
    assert_equal(calm, killed)
    assert kills.total() >= 10, kills
    assert finish(recipe, killed).endswith(f"nothing to do; state: {killed.folder}\n")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_while_it_trains(tmp_path: Path) -> None:
    recipe = tmp_path / "training.omr"
    recipe.write_text(TRAINING)
    calm, killed = State(tmp_path / "calm"), State(tmp_path / "killed")
    finish(recipe, calm)
    times = {"filter.accepted": 2, "sft.cold_start": 6, "rl.reasoner": 6, "eval.after": 4}
    kills = kill_often(recipe, calm, killed, times, seed=2)
    finish(recipe, killed)
    assert_equal(calm, killed)
    assert all(kills[address] for address in times), kills
    assert kills.total() >= 10, kills
