"""Real data and a real pretrained model: runs the word problem recipe at its small setting and prints the accuracies.

    python benchmarks/word_problems.py [--set PATH=VALUE ...]

500 training questions, 100 test questions of each set; at most 20 minutes on two cores.
"""

from __future__ import annotations

import sys

from measured import run


def main(settings: list[str]) -> None:
    metrics, seconds = run("word_problems", *settings)
    print(f"{'':12} {'before':>8} {'after SFT':>10} {'after GSPO':>11}")
    for source in ("mawps_test", "svamp_test"):
        found = [
            metrics[name]["by_source"][source]["accuracy"]
            for name in ("before", "between", "after")
        ]
        print(f"{source:12} {found[0]:>8.1%} {found[1]:>10.1%} {found[2]:>11.1%}")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "--set"])
