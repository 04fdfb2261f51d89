"""Each exit code has one meaning: here each is produced by a command line, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omrlang.cli.exits import EXIT_CODES, PRECEDENCE
from omrlang.cli.plans import worst

ROOT = Path(__file__).parents[1]
RECIPE = """\
omr 1

seed = 3

source words from jsonl("words.jsonl")
"""
MANY = 'omr 1\n\nseed = 3\n\nsource many from synthetic("shapes", n = 200_000, seed = 1)\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "words.jsonl").write_text('{"question": "?", "answer": "1"}\n')
    (tmp_path / "a.omr").write_text(RECIPE)
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "runtime")])
    return subprocess.Popen(
        [sys.executable, "-m", "omrlang", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def omr(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code, and all that was printed; never a traceback."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err
    return process.returncode, out + err


def test_0_is_done(folder: Path) -> None:
    for command in ("check", "plan", "run", "plan"):
        assert omr(folder, command, "a.omr")[0] == 0


def test_1_is_an_error(folder: Path) -> None:
    (folder / "a.omr").write_text(RECIPE.replace("jsonl(", "jsnl("))
    for command in ("check", "plan", "run"):
        assert omr(folder, command, "a.omr")[0] == 1
    (folder / "a.omr").write_text(RECIPE)
    (folder / "words.jsonl").write_text("{broken\n")
    code, out = omr(folder, "run", "a.omr")
    assert (code, "words.jsonl:1: not JSON" in out) == (1, True)


def test_2_only_says_that_something_would_run(folder: Path) -> None:
    assert omr(folder, "plan", "a.omr", "--detailed-exitcode")[0] == 2
    assert omr(folder, "run", "a.omr")[0] == 0
    assert omr(folder, "plan", "a.omr", "--detailed-exitcode")[0] == 0


def test_3_is_a_limit(folder: Path) -> None:
    (folder / "a.omr").write_text(RECIPE.rstrip() + " { expect = rows > 5 }\n")
    code, out = omr(folder, "plan", "a.omr", "--json")
    assert (code, json.loads(out)["exit"]) == (3, {"code": 3, "reason": "unexpected"})
    assert omr(folder, "run", "a.omr")[0] == 3
    assert not (folder / ".omr" / "store").exists()
    code, out = omr(folder, "run", "a.omr", "--accept-limits")
    assert (code, "came out otherwise than expected" in out) == (3, True)


def test_4_is_a_plan_or_an_input_that_moved(folder: Path) -> None:
    assert omr(folder, "plan", "a.omr", "--out", "a.omrplan")[0] == 0
    assert omr(folder, "lock", "a.omr")[0] == 0
    (folder / "words.jsonl").write_text('{"question": "!", "answer": "1"}\n')
    code, out = omr(folder, "run", "a.omrplan")
    assert (code, "words.jsonl changed" in out) == (4, True)
    code, out = omr(folder, "plan", "a.omr", "--locked", "--summary")
    assert (code, "an input is NOT AS LOCKED · exit 4" in out) == (4, True)
    assert omr(folder, "run", "a.omr", "--locked")[0] == 4
    assert omr(folder, "lock", "a.omr", "--check")[0] == 4


def test_5_is_an_interruption_and_the_same_command_goes_on(folder: Path) -> None:
    (folder / "a.omr").write_text(MANY)
    process = start(folder, "run", "a.omr")
    shards = folder / ".omr" / "store"
    end = time.monotonic() + 120
    while not list(shards.glob("*/shard-*.json")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5, out + err
    assert "the same command goes on" in out + err
    code, out = omr(folder, "plan", "a.omr", "--json")
    [stage] = json.loads(out)["stages"]
    assert (code, stage["action"], stage["reasons"]) == (0, "partial", ["partial_cache"])


def test_64_is_wrong_usage(folder: Path) -> None:
    for arguments in (
        ["pln", "a.omr"],
        ["plan"],
        ["plan", "a.omr", "--jsn"],
        ["plan", "a.omr", "--select", "wrds"],
        ["plan", "a.omr", "--force", "wrds"],
        ["plan", "a.omr", "--out", "a.zip"],
        ["why-rerun", "a.omr", "wrds"],
        ["explain", "a.omr", "words.row"],
        ["show", "everything"],
    ):
        assert omr(folder, *arguments)[0] == 64, arguments


def test_of_several_codes_the_first_in_their_order_counts() -> None:
    assert set(PRECEDENCE) == set(EXIT_CODES) == {0, 1, 2, 3, 4, 5, 64}
    assert worst([0, 2, 5, 3, 4, 1]) == 1
    assert worst([0, 2, 5, 3, 4]) == 4
    assert worst([0, 2, 5, 3]) == 3
    assert worst([0, 2, 5]) == 5
    assert worst([0, 2]) == 2
