"""How the time to check and to plan a recipe grows with its stages, to ten thousand of them.

    python benchmarks/scaling.py [STAGES ...]

`wide` repeats a whole pipeline (source, mix, sample, filter, sft, eval); `deep` is one chain of filters, each after
the one before. Prints seconds, milliseconds a stage, and the exponent of a power law fitted to the curve: 1 is linear.
"""

from __future__ import annotations

import gc
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from omrlang.compiler import load
from omrlang.planning import make_plan
from omrlang.render import render

STAGES = (100, 300, 1_000, 3_000, 10_000)
HEAD = """omr 1

use std.formats
use std.gpus
use std.models

seed = 7

hardware pod = 8 * gpus.a800_80gb { price = $1.60 / gpu_hour }
"""
UNIT = """
source s{n} from jsonl("no.jsonl") {{
  columns {{ question = problem, answer = solution }}
  where = len(answer) <= {n} + 50
  rows  = 1_000
}}

mix m{n} from [s{n}: all, s{before}: up_to(200)] {{ shuffle = true }}

sample t{n} from m{n} with models.qwen2_5_vl_7b on pod {{
  n           = 4
  prompt      = formats.think_answer
  temperature = 1
  max_tokens  = 4_096
}}

filter f{n} from t{n} {{
  keep    = format_ok and answer_matches and len(response) > {n}
  at_most = 2 per parent
}}

sft c{n} from f{n} with models.qwen2_5_vl_7b on pod {{
  prompt = formats.think_answer
  pack   = 8_192
  batch  = 1 pack / gpu
  epochs = 1
  lr     = cosine(5e-5, warmup = 10%)
}}

eval e{n} from s{n} with c{n} on pod {{
  prompt      = formats.think_answer
  temperature = 0
  max_tokens  = 4_096
}}
"""
LINK = "\nfilter f{n} from f{before} {{ keep = len(question) > {n} and len(answer) <= 50 }}\n"


def wide(stages: int) -> str:
    """Pipelines side by side, each with a few rows of its neighbour's source."""
    units = (UNIT.format(n=n, before=max(0, n - 1)) for n in range(stages // 6))
    return HEAD + "".join(units).replace("[s0: all, s0: up_to(200)]", "[s0: all]")


def deep(stages: int) -> str:
    """One chain."""
    links = (LINK.format(n=n, before=n - 1) for n in range(1, stages))
    return HEAD + '\nsource f0 from jsonl("no.jsonl") { rows = 1_000 }\n' + "".join(links)


def seconds(text: str) -> tuple[float, float]:
    """Of one check and of one plan, in a process that has done both before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.omr"
        path.write_text(text)
        start = time.perf_counter()
        recipe, found = load(path)
        checked = time.perf_counter()
        assert recipe is not None, render(found)
        make_plan(recipe, path.parent / "state", path)
        return checked - start, time.perf_counter() - checked


def exponent(sizes: list[int], times: list[float]) -> float:
    """The slope of a line through the logarithms, by least squares."""
    xs, ys = [math.log(size) for size in sizes], [math.log(time) for time in times]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum(
        (a - x) ** 2 for a in xs
    )


def curve(name: str, make: Callable[[int], str], sizes: list[int]) -> None:
    """One line a size, then what fits them."""
    found = []
    for size in sizes:
        check, plan = seconds(make(size))
        found.append((check, plan))
        print(
            f"{name:5} {size:7,}  {check:8.3f} s {check / size * 1e3:6.2f} ms/stage   {plan:8.3f} s {plan / size * 1e3:6.2f} ms/stage",
            flush=True,
        )
    check, plan = (exponent(sizes, list(times)) for times in zip(*found, strict=True))
    print(f"{name:5} grows as stages ^ {check:.2f} and ^ {plan:.2f}\n")


def main(sizes: list[int]) -> None:
    gc.set_threshold(500_000)  # as the command line does
    seconds(wide(6))  # imports, the grammar's table, the schema's models
    print(f"{'':13}  {'check':>26}   {'plan':>26}")
    for name, make in {"wide": wide, "deep": deep}.items():
        curve(name, make, sizes)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [*STAGES])
