"""math-verify in workers: verdicts, bombs that end in time, workers that are replaced and die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omr_runtime.errors import Resumable
from omr_runtime.verify import workers
from omr_runtime.verify.answers import Pair, decide
from omr_runtime.verify.math import MathPool, MathVerdict


@pytest.fixture(scope="module")
def pool() -> Iterator[MathPool]:
    with MathPool(num_workers=1, cpu_limit_s=2.0) as opened:
        opened.check([("1", "2")])
        yield opened


def verdict(pool: MathPool, truth: str, given: str) -> bool:
    """As the cascade asks: rules first, math-verify for what they leave open."""
    decision = decide(truth, given)
    if isinstance(decision, bool):
        return decision
    return all(found.ok for found in pool.check(decision))


@pytest.mark.parametrize(
    ("truth", "given"),
    [
        ("(x+1)^2", "x^2+2x+1"),
        ("2\\sqrt{2}", "\\sqrt{8}"),
        ("\\frac{\\pi}{2}", "\\pi/2"),
        ("5!", "120"),
        ("4^3", "64"),
        ("x=4", "$4$"),
        ("\\{1, 2\\}", "\\{2, 1\\}"),
        ("1 < x < 2", "(1, 2)"),
        ("(2\\sqrt{2}, 1)", "(\\sqrt{8}, 1.0)"),
    ],
)
def test_equal_mathematics(pool: MathPool, truth: str, given: str) -> None:
    assert verdict(pool, truth, given)


@pytest.mark.parametrize(
    ("truth", "given"),
    [
        ("2", "2x+1"),
        ("4", "(3, 4)"),
        ("8:30", "8"),
        ("1.5e3", "1.5"),
        ("6.02\\times10^{23}", "6.02"),
        ("3 1/2", "1"),
        ("4", "4 or 5"),
        ("2", "2x"),
        ("[1, 2]", "[1, 2)"),
        ("(3, 1)", "(2, 1)"),
        ("\\sqrt{2}", "\\sqrt{3}"),
        ("10", "100% sure: 10"),
        ("no", "on"),
    ],
)
def test_different_mathematics(pool: MathPool, truth: str, given: str) -> None:
    assert not verdict(pool, truth, given)


BOMBS: list[Pair] = [
    ("9^{9^{9^9}}", "1"),
    ("1", "{" * 1500),
    ("1", "\\int e^{x^2}\\sin(x^3) dx"),
    ("3", "\\sum_{i=1}^{10000000} i^{0.5}"),
]


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS, ids=["power", "braces", "integral", "sum"])
def test_a_bomb_ends_in_time_and_the_next_pair_is_answered(pool: MathPool, bomb: Pair) -> None:
    started = time.monotonic()
    assert pool.check([bomb]) == [MathVerdict(False, "timeout")]
    assert time.monotonic() - started < 20
    assert pool.check([(f"{len(bomb[1])}x+x", f"{len(bomb[1]) + 1}x")]) == [MathVerdict(True)]


def test_the_time_limit_is_processor_time() -> None:
    with MathPool(num_workers=1, cpu_limit_s=0.5) as quick:
        started = time.process_time()
        assert quick.check([BOMBS[0]])[0].reason == "timeout"
        assert time.process_time() - started < 0.5, "the parent only waits"


def test_the_wall_clock_limits_too() -> None:
    with MathPool(num_workers=1, cpu_limit_s=100.0, wall_limit_s=1.0) as short:
        started = time.monotonic()
        assert short.check([BOMBS[0]]) == [MathVerdict(False, "timeout")]
        assert time.monotonic() - started < 30


def test_many_pairs_in_order_and_each_asked_once(
    pool: MathPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(f"{k}x", f"{k % 7}x") for k in range(40)]
    expected = [MathVerdict(k == k % 7) for k in range(40)]
    assert pool.check(pairs + pairs) == expected + expected
    monkeypatch.setattr(pool, "_ask", lambda _: pytest.fail("asked again"))
    assert pool.check(pairs) == expected


def test_a_killed_worker_is_replaced(pool: MathPool) -> None:
    pool.check([("y", "z")])
    (child,) = children_of(os.getpid())
    os.kill(child, signal.SIGKILL)
    assert pool.check([("7y+y", "8y")]) == [MathVerdict(True)]


def test_a_pool_that_cannot_start_a_worker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        workers,
        "spawn",
        lambda command: subprocess.Popen(
            [sys.executable, "-c", "raise SystemExit(3)"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ),
    )
    with MathPool(num_workers=1) as broken, pytest.raises(Resumable, match="does not start"):
        broken.check([("x", "y")])


def children_of(parent: int) -> list[int]:
    """Worker processes below a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and b"omr_runtime.verify.math" in command:
            found.append(int(stat.parent.name))
    return found


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        from omr_runtime.verify.math import MathPool
        pool = MathPool(1, cpu_limit_s=1000)
        pool.check([("x", "y")])
        print("started", flush=True)
        pool.check([("9^{9^{9^9}}", "1")])
        """)
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=env) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        (worker,) = children_of(parent.pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{worker}").exists()
