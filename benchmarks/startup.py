"""How long `omr check` and `omr plan` take as whole processes, beside what they cannot go below.

    python benchmarks/startup.py [RUNS]

Prints medians in milliseconds and the ratio to `python -c "import lark, pydantic"` measured in turn with them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOOR = [sys.executable, "-c", "import lark, pydantic"]


def milliseconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return (time.perf_counter() - start) * 1000


def main(runs: int) -> None:
    """Time every command in turn, so that a drift of the machine's speed hits all of them."""
    state = tempfile.mkdtemp()
    commands = {"import lark, pydantic": FLOOR}
    for recipe in ("quickstart", "word_problems", "gsm8k", "openmmreasoner/openmmreasoner"):
        path = f"pipelines/{recipe}.omr"
        omr = [sys.executable, "-m", "omrlang"]
        commands[f"omr check {recipe}.omr"] = [*omr, "check", path]
        commands[f"omr plan {recipe}.omr"] = [*omr, "plan", path, "--state", state]
    for command in commands.values():
        milliseconds(command)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(milliseconds(command))
    floor = statistics.median(times["import lark, pydantic"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:30} {median:7.0f} ms   {median / floor:4.1f} x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
