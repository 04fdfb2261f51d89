"""The driver: what runs, what is committed, how it ends when something goes wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import drive
import plans
import pytest

from omr_runtime import lineage
from omr_runtime.executor import execute
from omr_runtime.lock import marked
from omr_runtime.progress import PlainDisplay
from omr_runtime.result import print_result
from omr_runtime.store import State, read_index
from omr_runtime.work import InputRows, read_rows
from omrlang.types import UpTo

SPECS = [
    plans.source("words", "words.jsonl"),
    plans.shapes("puzzles", 40),
    plans.mix("both", ["words", "puzzles"]),
]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    write_words(tmp_path, 60)
    return tmp_path


def write_words(folder: Path, n: int) -> None:
    rows = ({"question": f"what is {i % 50}?", "answer": i % 50} for i in range(n))
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(specs: list[Any], folder: Path) -> tuple[int, list[str], str]:
    """In this process, with an unheld lock; exit code, executed stages, what was shown."""
    out = io.StringIO()
    state = folder / "state"
    code, executed = execute(plans.plan(specs, state, folder), state, show=PlainDisplay(out))
    return code, executed, out.getvalue()


def rows_of(state: Path, name: str) -> list[dict[str, Any]]:
    index = read_index(State(state))
    mark = next(mark for key, mark in index["names"].items() if key.endswith(f"::{name}"))
    return list(
        read_rows([InputRows(name=name, fingerprint=mark, folder=str(State(state).artifact(mark)))])
    )


def test_a_run_and_a_second_one(words: Path) -> None:
    code, executed, _ = run(SPECS, words)
    assert (code, executed) == (0, ["words", "puzzles", "both"])
    code, executed, out = run(SPECS, words)
    assert (code, executed, out) == (0, [], "")
    index = read_index(State(words / "state"))
    counts = {
        e["name"]: (e["num_in"], e["num_kept"], e["num_dropped"]) for e in index["stages"].values()
    }
    assert counts == {"words": (60, 60, 0), "puzzles": (40, 40, 0), "both": (100, 90, 10)}
    with lineage.read(State(words / "state").lineage) as reader:
        assert [(r["exit_code"], json.loads(r["stages"])) for r in reader.runs()] == [
            (0, ["words", "puzzles", "both"])
        ]


def test_the_result_table(words: Path) -> None:
    run(SPECS, words)
    out = io.StringIO()
    state = words / "state"
    print_result(plans.plan(SPECS, state, words), read_index(State(state)), ["both"], out)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["source.words", "60", "60", "0"] in [line[:4] for line in lines]
    assert any(
        line[:4] == ["mix.both", "100", "90", "10"] and "cached" not in line for line in lines
    )


def test_only_what_changed_runs(words: Path) -> None:
    run(SPECS, words)
    changed = [*SPECS[:2], plans.mix("both", {"words": UpTo(n=20), "puzzles": UpTo(n=5)})]
    code, executed, _ = run(changed, words)
    assert (code, executed) == (0, ["both"])
    assert len(rows_of(words / "state", "both")) == 25


def test_equal_stages_are_made_once(words: Path) -> None:
    twin = plans.source("twin", "words.jsonl")
    code, executed, out = run([SPECS[0], twin], words)
    assert (code, executed) == (0, ["words", "twin"])
    assert "as an equal stage above" in out
    with lineage.read(State(words / "state").lineage) as reader:
        assert len(reader.stages()) == 1


def test_a_mistake_in_the_data_ends_with_1_and_its_place(words: Path) -> None:
    with open(words / "words.jsonl", "a") as file:
        file.write("{broken\n")
    code, _, out = run(SPECS, words)
    assert code == 1
    assert "words.jsonl:61: not JSON" in out
    assert "Traceback" not in out
    index = read_index(State(words / "state"))
    assert [entry["status"] for entry in index["stages"].values()] == ["failed"]
    write_words(words, 60)
    assert run(SPECS, words)[0] == 0


def test_a_cached_stage_that_is_gone_makes_the_plan_stale(words: Path) -> None:
    run(SPECS, words)
    state = words / "state"
    plan = plans.plan(SPECS, state, words)
    (state / "index.json").unlink()
    (state / "lock").write_text("")
    out = io.StringIO()
    assert execute(plan, state, show=PlainDisplay(out))[0] == 4
    assert "the plan is stale" in out.getvalue()


def test_a_lost_index_is_made_again_from_the_lineage(words: Path) -> None:
    run(SPECS, words)
    state = State(words / "state")
    before = read_index(state)["stages"]
    state.index.write_text(json.dumps({**read_index(state), "stages": {}}))
    state.lock.write_text('{"pid": 0, "host": "", "birth": "0"}')  # as a killed run leaves it
    code, executed, _ = drive_in_process(words)
    assert (code, executed) == (0, [])
    after = read_index(state)["stages"]
    for mark, entry in before.items():
        assert {k: v for k, v in entry.items() if k != "updated"} == {
            k: v for k, v in after[mark].items() if k != "updated"
        }


def drive_in_process(folder: Path) -> tuple[int, list[str], str]:
    """As ``omr run``: lock, prepare, plan, execute."""
    from omr_runtime.executor import prepare
    from omr_runtime.lock import hold

    state, out = folder / "state", io.StringIO()
    with hold(State(state)) as lock:
        prepare(State(state), lock)
        code, executed = execute(
            plans.plan(SPECS, state, folder), state, lock=lock, show=PlainDisplay(out)
        )
    return code, executed, out.getvalue()


def test_lost_files_are_made_again(words: Path) -> None:
    run(SPECS, words)
    whole = rows_of(words / "state", "both")
    index = read_index(State(words / "state"))
    mark = next(mark for mark, entry in index["stages"].items() if entry["name"] == "both")
    (State(words / "state").artifact(mark) / "part-00000.parquet").unlink()
    code, executed, _ = drive_in_process(words)
    assert (code, executed) == (0, ["both"])
    assert rows_of(words / "state", "both") == whole
    with lineage.read(State(words / "state").lineage) as reader:
        assert reader.counts(mark).num_rows == len(whole), "nothing is counted twice"


def test_a_damaged_file_is_found_when_it_is_read_and_made_again(words: Path) -> None:
    run(SPECS[:2], words)
    index = read_index(State(words / "state"))
    mark = next(mark for mark, entry in index["stages"].items() if entry["name"] == "words")
    part = State(words / "state").artifact(mark) / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[60:90] = bytes(30)
    part.write_bytes(bytes(data))
    code, _, out = drive_in_process(words)
    assert code == 5, out
    assert "missing or damaged" in out
    code, executed, _ = drive_in_process(words)
    assert (code, executed) == (0, ["words", "both"])
    assert len(rows_of(words / "state", "both")) == 90


def test_a_second_run_is_refused_and_told_who_runs(words: Path) -> None:
    specs = [plans.shapes("many", 20_000)]
    first = drive.start(specs, words / "state", words)
    wait_for_workers(words / "state")
    code, out = drive.finish(drive.start(specs, words / "state", words))
    assert code == 1
    assert f"in use by process {first.pid} on host" in out
    first.send_signal(signal.SIGTERM)
    assert drive.finish(first)[0] == 5


def wait_for_workers(state: Path, seconds: float = 60.0) -> list[int]:
    """The marked processes, once there are a keeper and a worker."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = marked(State(state).lock)
        if len(found) >= 2:
            return found
        time.sleep(0.02)
    raise AssertionError("no worker started")


def wait_for_stage_process(state: Path, seconds: float = 60.0) -> int:
    """The process of a stage, once it runs the stage's own module: a fork still has its parent's command line."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in marked(State(state).lock):
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"omr_runtime.stages" in command and b"keeper" not in command:
                    return pid
        time.sleep(0.02)
    raise AssertionError("no stage started")


def wait_for_shards(state: Path, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not list(state.glob("store/*/shard-*.json")):
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_the_run_cleanly(words: Path, number: signal.Signals) -> None:
    specs = [plans.shapes("many", 20_000)]
    process = drive.start(specs, words / "state", words)
    wait_for_shards(words / "state")
    process.send_signal(number)
    code, out = drive.finish(process)
    assert code == 5
    assert "stopped: interrupted" in out
    assert "the same command goes on" in out
    assert "Traceback" not in out
    assert marked(State(words / "state").lock) == []
    entry = next(iter(read_index(State(words / "state"))["stages"].values()))
    assert entry["status"] == "partial"
    assert entry["num_shards"] >= 1


def test_a_killed_worker_ends_with_5_and_names_its_log(words: Path) -> None:
    process = drive.start([plans.shapes("many", 20_000)], words / "state", words)
    os.kill(wait_for_stage_process(words / "state"), signal.SIGKILL)
    code, out = drive.finish(process)
    assert code == 5, out
    assert "source.many: its process was killed by SIGKILL" in out
    assert "logs/many.log" in out


def test_a_full_disk_ends_with_5_and_a_re_run_goes_on(words: Path) -> None:
    """The limit on the length of a file is real: it hits shards and the database alike."""
    code, out = drive.finish(drive.start(SPECS, words / "state", words, limit_bytes=2_000))
    assert code == 5, out
    assert "the disk is full" in out
    assert "Traceback" not in out
    code, out = drive.finish(drive.start(SPECS, words / "state", words))
    assert code == 0, out
    assert len(rows_of(words / "state", "both")) == 90


@pytest.mark.slow
@pytest.mark.parametrize("limit_kb", [8, 16, 32, 64, 128, 280, 400, 800, 1_600])
def test_a_full_disk_during_any_commit(tmp_path: Path, limit_kb: int) -> None:
    """Limits from what not even a work order fits into to what only the last commits pass: each time a database that
    opens (or none yet), shards that are whole, and a run that goes on."""
    write_words(tmp_path, 6_000)
    specs = [*SPECS[:2], plans.mix("both", {"words": UpTo(n=4_000), "puzzles": UpTo(n=30)})]
    specs[0] = specs[0].model_copy(update={"bad_rows": "drop"})
    state = State(tmp_path / "state")
    code, out = drive.finish(
        drive.start(specs, state.folder, tmp_path, limit_bytes=1_000 * limit_kb)
    )
    assert code in (0, 5), out
    assert code == 0 or "the disk is full" in out
    assert "Traceback" not in out
    if state.lineage.exists():
        with lineage.read(state.lineage) as reader:
            for stage in reader.stages():
                counts = reader.counts(stage["fingerprint"])
                rows = reader.ask('select count(*) as n from "row" where stage = ?', stage["fingerprint"])  # fmt: skip
                assert rows == [{"n": counts.num_rows}]
    code, out = drive.finish(drive.start(specs, state.folder, tmp_path))
    assert code == 0, out
    assert len(rows_of(state.folder, "both")) == 50 + 30
    code, out = drive.finish(drive.start(specs, state.folder, tmp_path))
    assert (code, out.strip().splitlines()[-1]) == (0, "executed:")


def test_a_full_disk_under_the_lineage(tmp_path: Path) -> None:
    """Shards are small enough for the limit, the database's log is not."""
    write_words(tmp_path, 40_000)
    code, out = drive.finish(
        drive.start(SPECS[:1], tmp_path / "state", tmp_path, limit_bytes=2_000_000)
    )
    assert code == 5, out
    assert "lineage.duckdb: the disk is full" in out
    assert "Traceback" not in out
    code, out = drive.finish(drive.start(SPECS[:1], tmp_path / "state", tmp_path))
    assert code == 0, out
    assert len(rows_of(tmp_path / "state", "words")) == 40_000


@pytest.mark.parametrize(
    "module", ["torch", "transformers", "datasets", "vllm", "accelerate", "PIL"]
)
def test_the_driver_imports_nothing_heavy(module: str) -> None:
    code = f"import sys; from omr_runtime import executor, result, story; sys.exit({module!r} in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(drive.ROOTS)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_a_second_run_executes_nothing(words: Path) -> None:
    assert drive.finish(drive.start(SPECS, words / "state", words))[0] == 0
    code, out = drive.finish(drive.start(SPECS, words / "state", words))
    assert code == 0
    assert out.strip() == "executed:"
