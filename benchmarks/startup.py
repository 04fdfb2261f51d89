"""How long `omr check`, `omr plan` and `omr diff` take as whole processes, beside what they cannot go below.

    python benchmarks/startup.py [RUNS] [--cpu]

With ``--cpu`` processor time is measured in place of wall time, which is fairer on a busy machine.
Prints medians in milliseconds and the ratio to `python -c "import lark, pydantic"` measured in turn with them.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOOR = [sys.executable, "-c", "import lark, pydantic"]


def processor_seconds() -> float:
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def milliseconds(command: list[str], clock: Callable[[], float]) -> float:
    start = clock()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return (clock() - start) * 1000


def main(runs: int, clock: Callable[[], float]) -> None:
    """Time every command in turn, so that a drift of the machine's speed hits all of them."""
    state = tempfile.mkdtemp()
    omr = [sys.executable, "-m", "omrlang"]
    commands = {"import lark, pydantic": FLOOR}
    for recipe in ("quickstart", "word_problems", "gsm8k", "openmmreasoner/openmmreasoner"):
        path = f"pipelines/{recipe}.omr"
        commands[f"omr check {recipe}.omr"] = [*omr, "check", path]
        commands[f"omr plan {recipe}.omr"] = [*omr, "plan", path, "--state", state]
    paper = "pipelines/openmmreasoner"
    pair = [f"{paper}/openmmreasoner.omr", f"{paper}/as_released.omr"]
    commands["omr diff openmmreasoner as_released"] = [*omr, "diff", *pair, "--state", state]
    for command in commands.values():
        milliseconds(command, clock)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(milliseconds(command, clock))
    floor = statistics.median(times["import lark, pydantic"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:36} {median:7.0f} ms   {median / floor:4.1f} x")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--cpu"]
    main(
        int(words[0]) if words else 11,
        processor_seconds if "--cpu" in sys.argv else time.perf_counter,
    )
