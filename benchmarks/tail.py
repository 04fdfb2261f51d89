"""What waiting for the longest answers costs: rollouts of `rl` with all groups of a batch, and with `oversample`.

    python benchmarks/tail.py FOLDER [--steps 8] [--prompts 8] [--beyond 4] [--group 4]

SmolLM2-135M answers made-up word problems in vLLM, as long as it likes up to a limit; no update follows, so that the weights stay.
Three ways take turns on one engine, a step each: a step's batch waits for all of its groups; it takes the first that end of
`beyond` prompts more, and the others go on in the next step (`continue`) or are left out (`drop`). Each way's first step and, with
`continue`, the tokens that nobody learned from at the end are in the line apart. The rate is of the response tokens
that a step would learn from.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_RESPONSE = 384
SEED = 7
RECIPE = """omr 1

use std.formats
use std.models

seed = {seed}

source questions from jsonl("questions.jsonl")

rl reasoner from questions with models.smollm2_135m {{
  prompt       = formats.think_answer_short
  algorithm    = gspo(clip = [3e-4, 4e-4])
  reward       = 0.001 * len(response)
  group        = {group}
  batch        = {prompts} prompts
  steps        = {steps}
  lr           = constant(1e-6)
  temperature  = 1.0
  max_prompt   = 128
  max_response = {most}
  engine       = vllm()
{more}}}
"""
WAYS = {"all": "", "continue": "continue(steps = 4)", "drop": "drop()"}


@dataclass
class Way:
    """One way's steps: the tokens learned from, the seconds, and the lengths of the answers in them."""

    supply: Any
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    asked: int = 0
    left: float = 0

    def step(self, number: int) -> None:
        batch = self.supply.batch(number, self.asked)
        self.asked += batch.num_asked
        found = [len(one.token_ids) for group in batch.groups.values() for one in group]
        self.tokens.append(sum(found))
        self.seconds.append(batch.rollout_s)
        self.left += batch.more.get("left_tokens", 0)
        self.lengths += found

    @property
    def rate(self) -> float:
        return sum(self.tokens[1:]) / sum(self.seconds[1:])


def spec_of(args: argparse.Namespace, way: str) -> Any:
    from omrlang.compiler import load

    more = (
        f"  oversample   = {args.beyond} prompts\n  unfinished   = {WAYS[way]}\n"
        if WAYS[way]
        else ""
    )
    path = args.folder / f"{way}.omr"
    path.write_text(RECIPE.format(seed=SEED, group=args.group, prompts=args.prompts, steps=args.steps, most=MAX_RESPONSE, more=more))  # fmt: skip
    recipe, diagnostics = load(path)
    assert recipe is not None, diagnostics
    return next(stage.spec for stage in recipe.stages if stage.spec.kind == "rl")


def asked(args: argparse.Namespace) -> list[dict[str, Any]]:
    import json

    from sampling import questions

    count = args.steps * (args.prompts + args.beyond)
    rows = [{"question": text} for text in questions(count, SEED)]
    (args.folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    blank = {"images": [], "messages": None, "prompt": None, "answer": None, "source": "s"}
    return [{**blank, "id": f"row{i}", **row} for i, row in enumerate(rows)]


def ways(args: argparse.Namespace) -> dict[str, Way]:
    """All of them on one engine and one trainer, whose weights they share."""
    from sampling import model

    from omr_runtime.engines.vllm import VllmEngine, VllmLimits
    from omr_runtime.models import load, materialise
    from omr_runtime.store import ImageStore
    from omr_runtime.train.loop import Trainer, open_accelerator
    from omr_runtime.train.prompts import plan_prompts
    from omr_runtime.train.rollout import Questions, Rollouts
    from omr_runtime.train.supply import Drawing, open_supply
    from omr_runtime.verify.cascade import Cascade
    from omr_runtime.verify.reward import Reward

    rows = asked(args)
    specs = {way: spec_of(args, way) for way in WAYS}
    spec = specs["all"]
    loaded = load(materialise(model(), args.folder))
    trainer = Trainer(open_accelerator(spec), loaded.model, spec)
    rollouts = Rollouts(VllmEngine(loaded, spec.precision, VllmLimits(128 + MAX_RESPONSE)), True)
    found = {}
    for way, own in specs.items():
        questions = Questions(rows, loaded, own, ImageStore(args.folder))
        prompts = plan_prompts([row["id"] for row in rows], questions.lengths(trainer), own)
        reward = Reward(Cascade(own.reward, own.prompt)).__enter__()
        found[way] = Way(open_supply(Drawing(own, trainer, questions, prompts, rollouts, reward)))
    return found


def spread(lengths: Sequence[int]) -> str:
    logs = [math.log(one) for one in lengths if one]
    cut = sum(one >= MAX_RESPONSE for one in lengths) / len(lengths)
    return f"median {statistics.median(lengths):.0f}, mean {statistics.fmean(lengths):.0f}, sigma of the logarithms {statistics.pstdev(logs):.2f}, {cut:.0%} cut at {MAX_RESPONSE}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name, value in (("steps", 8), ("prompts", 8), ("beyond", 4), ("group", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    args.folder = args.folder.resolve()
    running = ways(args)
    for step in range(args.steps):
        order = list(running) if step % 2 == 0 else list(running)[::-1]
        for name in order:
            running[name].step(step)
            way = running[name]
            print(f"step {step + 1} {name:9} {way.tokens[-1]:6,} tokens {way.seconds[-1]:6.1f} s", flush=True)  # fmt: skip
    print(f"answers of `all`: {spread(running['all'].lengths)}")
    print(
        "| way | tokens learned from | seconds | tokens/s | over `all` | first step, s | answers' mean tokens | tokens left |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, way in running.items():
        mean = statistics.fmean(way.lengths)
        print(
            f"| {name} | {sum(way.tokens[1:]):,} | {sum(way.seconds[1:]):.1f} | {way.rate:.0f} | {way.rate / running['all'].rate:.2f} "
            f"| {way.seconds[0]:.1f} | {mean:.0f} | {way.left:,.0f} |"
        )


if __name__ == "__main__":
    main()
