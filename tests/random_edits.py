"""Random edits of a recipe, each planned as ``omr plan`` does it and run as ``omr run`` does it, in this process: the stages
whose work was done against those that the plan listed.

A recipe is its parts (``Parts``); an edit changes some of them, or its data, or only how it is written. Workers are not
started as processes: their work is done here, so that hundreds of runs take minutes.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from unittest import mock

from omr_runtime import executor, ledger
from omr_runtime.engines.protocol import Request
from omr_runtime.order import write_work
from omr_runtime.questions import Wanted
from omr_runtime.stages.__main__ import run as do_work
from omr_runtime.work import Work
from omrlang.cli import main
from omrlang.plan import PlanStage

KEEPS = ("format_ok", "answer_matches", "format_ok and answer_matches", "len(response) < 200")


@dataclass(frozen=True)
class Parts:
    """What a recipe says. ``training`` has the settings of a tiny ``sft`` and ``rl``, or is empty."""

    seed: int = 3
    num_words: int = 8
    num_puzzles: int = 6
    drawing: int = 1
    take: int | None = None
    amount: str = "all"
    shuffle: bool = True
    n: int = 1
    temperature: float = 1.0
    right: int = 70
    keep: str = KEEPS[0]
    at_most: int | None = None
    second: bool = False
    name: str = "accepted"
    comment: str = ""
    training: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The recipe."""
        take = f" {{ take = {self.take} }}" if self.take else ""
        cap = f"\n  at_most = {self.at_most} per parent" if self.at_most else ""
        second = f"\nfilter short from {self.name} {{ keep = len(response) < 120 }}\n"
        last = "short" if self.second else self.name
        return f"""omr 1

# {self.comment}
use std.formats

seed = {self.seed}

model teacher = scripted("shapes", right = {self.right}%)

source words from jsonl("words.jsonl"){take}

source puzzles from synthetic("shapes", n = {self.num_puzzles}, seed = {self.drawing})

mix questions from [puzzles: {self.amount}] {{ shuffle = {str(self.shuffle).lower()} }}

sample traces from questions with teacher {{
  n           = {self.n}
  prompt      = formats.think_answer_short
  temperature = {self.temperature}
  max_tokens  = 64
}}

filter {self.name} from traces {{
  keep = {self.keep}{cap}
}}
{second if self.second else ""}
mix data from [words: all, {last}: all]
{_training(self.training, last) if self.training else ""}"""


def _training(settings: dict[str, str], rows: str) -> str:
    return f"""
model tiny = fresh(
  "qwen2_5_vl", layers = 1, hidden = 32, heads = 2, vision_layers = 1, vision_hidden = 32,
  vocabulary = shapes, seed = 1,
) {{ precision = fp32 }}

sft start from {rows} with tiny {{
  prompt    = formats.think_answer_short
  pack      = 512
  batch     = 1 pack
  steps     = {settings["sft_steps"]}
  lr        = constant({settings["sft_lr"]})
  precision = fp32
}}

rl better from puzzles with start {{
  prompt       = formats.think_answer_short
  algorithm    = gspo(clip = [3e-4, 4e-4])
  reward       = {settings["reward"]}
  group        = 2
  batch        = 2 prompts
  steps        = {settings["rl_steps"]}
  lr           = constant(1e-4)
  temperature  = 1.0
  max_prompt   = 256
  max_response = 16
  precision    = fp32
}}
"""


Edit = Callable[[Random, Parts], Parts]
EDITS: tuple[Edit, ...] = (
    lambda rng, parts: replace(parts, seed=rng.randint(1, 3)),
    lambda rng, parts: replace(parts, num_words=rng.randint(4, 10)),
    lambda rng, parts: replace(parts, num_puzzles=rng.randint(4, 8)),
    lambda rng, parts: replace(parts, drawing=rng.randint(1, 2)),
    lambda rng, parts: replace(parts, take=rng.choice([None, 3, 4])),
    lambda rng, parts: replace(parts, amount=rng.choice(["all", "3", "up_to(5)", "times(2)"])),
    lambda rng, parts: replace(parts, shuffle=not parts.shuffle),
    lambda rng, parts: replace(parts, n=rng.randint(1, 4)),
    lambda rng, parts: replace(parts, temperature=rng.choice([0.5, 1.0])),
    lambda rng, parts: replace(parts, right=rng.choice([60, 70])),
    lambda rng, parts: replace(parts, keep=rng.choice(KEEPS)),
    lambda rng, parts: replace(parts, at_most=rng.choice([None, 1, 2])),
    lambda rng, parts: replace(parts, second=not parts.second),
    lambda rng, parts: replace(parts, name=rng.choice(["accepted", "kept"])),
    lambda rng, parts: replace(parts, comment=rng.choice(["one", "another"])),
    lambda rng, parts: parts,
)
TRAINING_EDITS: tuple[Edit, ...] = (
    lambda rng, parts: _with(parts, sft_steps=str(rng.randint(1, 2))),
    lambda rng, parts: _with(parts, rl_steps=str(rng.randint(1, 2))),
    lambda rng, parts: _with(parts, sft_lr=rng.choice(["1e-3", "2e-3"])),
    lambda rng, parts: _with(parts, reward=rng.choice(["answer_matches", "format_score"])),
    lambda rng, parts: replace(parts, keep=rng.choice(KEEPS)),
    lambda rng, parts: replace(parts, comment=rng.choice(["one", "another"])),
)
TRAINING = {"sft_steps": "1", "rl_steps": "1", "sft_lr": "1e-3", "reward": "answer_matches"}


def _with(parts: Parts, **settings: str) -> Parts:
    return replace(parts, training={**parts.training, **settings})


@dataclass(frozen=True)
class Outcome:
    """One run: the stages that were planned and those that were done, and how many samples were generated."""

    cold: bool
    options: tuple[str, ...]
    planned: tuple[str, ...]
    done: tuple[str, ...]
    generated: int
    code: int


@contextlib.contextmanager
def _worked_here() -> Iterator[tuple[list[str], list[int]]]:
    """Workers do their work in this process; which stages they did, and how many samples they had generated."""
    done: list[str] = []
    generated: list[int] = []
    generate = ledger._generate

    def work(run: executor.Run, stage: PlanStage, started: float) -> None:
        write_work(run.plan, stage, run.state)
        done.append(stage.name)
        do_work(Work.read(run.state.work(stage.fingerprint)))

    def counted(
        asking: ledger.Ledger, asked: Generator[Request], wanted: Wanted, total: int
    ) -> None:
        generated.append(wanted.num_samples)
        generate(asking, asked, wanted, total)

    with (
        mock.patch.object(executor, "_work", work),
        mock.patch.object(ledger, "_generate", counted),
    ):
        yield done, generated


def outcome(folder: Path, parts: Parts, options: tuple[str, ...]) -> Outcome:
    """Plan the recipe, run it, and see what was done. The current directory must be ``folder``."""
    rows = ({"question": f"what is {i}?", "answer": str(i)} for i in range(parts.num_words))
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "a.omr").write_text(parts.text())
    cold = not (folder / ".omr").exists()
    out, quiet = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(quiet):
        planned_code = main(["plan", "a.omr", "--json", *options])
    planned = json.loads(out.getvalue()) if planned_code == 0 else {"stages": []}
    due = [s["name"] for s in planned["stages"] if s["selected"] and s["action"] != "cached"]
    with (
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
        _worked_here() as (done, generated),
    ):
        code = main(["run", "a.omr", *options])
    return Outcome(cold, options, tuple(due), tuple(done), sum(generated), code)


def walk(folder: Path, rng: Random, edits: int, training: bool = False) -> Iterator[Outcome]:
    """A cold run and then edits over the same state, some with ``--force`` or ``--select``."""
    parts = Parts(training=TRAINING if training else {})
    yield outcome(folder, parts, ())
    for _ in range(edits):
        for _ in range(rng.randint(1, 2)):
            parts = rng.choice(TRAINING_EDITS if training else EDITS)(rng, parts)
        yield outcome(folder, parts, _options(rng, parts))


def _options(rng: Random, parts: Parts) -> tuple[str, ...]:
    chance = rng.random()
    if chance < 0.1:
        return ("--force", rng.choice(["words", "traces", parts.name]))
    if chance < 0.2:
        return ("--select", rng.choice(["+traces", "source:words", "+data", "state:cached"]))
    return ()
