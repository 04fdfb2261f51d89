"""Does the quickstart learn, whatever the seed? Runs it once for each of three seeds and prints the accuracies.

    python benchmarks/quickstart_seeds.py [SEED ...]

Held-out puzzles are the same for all seeds. About five minutes a seed on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(seed: int) -> tuple[list[float], float]:
    """Accuracy before, after SFT and after GSPO, and the seconds of the whole run."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "omrlang", "run", "pipelines/quickstart.omr"]
        start = time.monotonic()
        subprocess.run([*command, "--set", f"seed={seed}", "--state", state], check=True, cwd=ROOT)
        seconds = time.monotonic() - start
        index = json.loads((Path(state) / "index.json").read_text())
    metrics = {entry["name"]: entry.get("metrics", {}) for entry in index["stages"].values()}
    return [metrics[name]["accuracy"] for name in ("before", "between", "after")], seconds


def main(seeds: list[int]) -> None:
    results = {seed: run(seed) for seed in seeds}
    print(f"{'seed':>6} {'before':>8} {'after SFT':>10} {'after GSPO':>11} {'seconds':>8}")
    for seed, (accuracies, seconds) in results.items():
        before, between, after = accuracies
        print(f"{seed:>6} {before:>8.1%} {between:>10.1%} {after:>11.1%} {seconds:>8.0f}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [7, 8, 9])
