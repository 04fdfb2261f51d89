"""Is what is planned what runs? Random edits of a recipe, each planned and run, over empty and over full state folders.

    python benchmarks/parity.py [EDITS] [TRAINING_EDITS]

Prints how many runs there were, how many stages they executed, and every run in which the executed stages were not the
planned ones; exits 1 if there was one. By default 500 edits of sources, mixes, samples and filters with a scripted
teacher, and 20 with a real ``sft`` and ``rl`` of a tiny model. All in one process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from random_edits import Outcome, walk

WALK = 24
"""Edits over one state folder, after its first, cold run."""


def main(edits: int, training_edits: int) -> int:
    """The exit code."""
    differed = 0
    for title, number, training in (
        ("source, mix, sample, filter", edits, False),
        ("with sft and rl", training_edits, True),
    ):
        started = time.monotonic()
        found = outcomes(number, training=training)
        wrong = [run for run in found if run.done != run.planned or run.code not in (0, 64)]
        differed += len(wrong)
        cold = sum(run.cold for run in found)
        print(
            f"{title}: {len(found)} runs ({cold} cold, {len(found) - cold} after an edit) executed "
            f"{sum(len(run.done) for run in found)} stages and {sum(run.generated for run in found)} samples; "
            f"{sum(not run.done for run in found)} had nothing to do; {len(wrong)} differed from their plan "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )
        for run in wrong:
            print(f"  {run}")
    return 1 if differed else 0


def outcomes(edits: int, *, training: bool) -> list[Outcome]:
    """Walks of at most ``WALK`` edits each until there are so many."""
    found: list[Outcome] = []
    made = 0
    while made < edits:
        length = min(WALK, edits - made)
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            found += walk(Path(folder), Random(made), length, training)
        made += length
    return found


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(numbers or [500, 20])))
