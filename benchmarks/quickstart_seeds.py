"""Does the quickstart learn, whatever the seed? Runs it once for each of three seeds and prints the accuracies.

    python benchmarks/quickstart_seeds.py [SEED ...]

Held-out puzzles are the same for all seeds. A few minutes a seed on two cores.
"""

from __future__ import annotations

import sys

from measured import run


def main(seeds: list[int]) -> None:
    lines = []
    for seed in seeds:
        metrics, seconds = run("quickstart", f"seed={seed}")
        before, between, after = (
            metrics[name]["accuracy"] for name in ("before", "between", "after")
        )
        lines.append(f"{seed:>6} {before:>8.1%} {between:>10.1%} {after:>11.1%} {seconds:>8.0f}")
    print(f"{'seed':>6} {'before':>8} {'after SFT':>10} {'after GSPO':>11} {'seconds':>8}")
    print("\n".join(lines))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [7, 8, 9])
