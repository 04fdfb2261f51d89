"""Each case's model trained twice by two processes, plain and cut up by FSDP2: what came of both, as lines of JSON.

``torchrun --nproc-per-node=2 tests/fsdp_cases.py FOLDER`` writes ``FOLDER/rank-0.jsonl``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omr_runtime import chat
from omr_runtime.models import Loaded, load
from omr_runtime.train.batching import PackedBatch, Sample, make_sample, pack_or_dummy
from omr_runtime.train.loop import Trainer, open_accelerator
from omrlang.types import AdamW, Fsdp, Lora, Prompt
from tests.test_families import rows_and_images
from tests.training_parts import fresh_folder, sft_spec

RANKS = 2


@dataclass(frozen=True)
class Case:
    """``untied``: the output layer is a matrix of its own."""

    name: str
    family: str
    sharding: Fsdp
    settings: dict[str, Any] = field(default_factory=dict)
    lr: float = 1e-2
    steps: int = 3
    untied: bool = False


KEPT, AGAIN = Fsdp(reshard_after_forward=False), Fsdp()
BF16 = {"precision": "bf16", "recompute": True}
CASES = [
    Case("text", "qwen2", AGAIN),
    Case("text untied", "qwen2", KEPT, untied=True),
    Case("text bf16 small steps", "qwen2", AGAIN, BF16, lr=1e-6, steps=30),
    Case("8 bits", "qwen2", KEPT, {"optimizer": AdamW(moments="blockwise8")}, lr=1e-3),
    Case("qwen2_5_vl bf16", "qwen2_5_vl", KEPT, BF16, lr=1e-3),
    Case("frozen", "qwen2_5_vl", AGAIN, {"freeze": ("vision", "embeddings"), "recompute": True}),
    Case("adapters", "qwen2_5_vl", AGAIN, {"adapter": Lora(rank=4, alpha=8), **BF16}),
    Case("qwen3_vl", "qwen3_vl", AGAIN, {"recompute": True}),
    Case("llava", "llava", KEPT),
    Case("llava_onevision", "llava_onevision", AGAIN),
    Case("smolvlm", "smolvlm", KEPT, {"recompute": True}),
    Case("gemma3", "gemma3", AGAIN),
]


def main(folder: Path) -> None:
    results = [run(case, folder) for case in CASES]
    (folder / f"rank-{results[0]['rank']}.jsonl").write_text("\n".join(map(json.dumps, results)))
    torch.distributed.destroy_process_group()


def run(case: Case, folder: Path) -> dict[str, Any]:
    plain, parts = (Run(case, folder, sharding) for sharding in (None, case.sharding))
    expected, found = plain.trained(), parts.trained()
    moved = [(a - b).norm().item() for a, b in zip(expected, plain.start, strict=True)]
    apart = [(a - b).norm().item() for a, b in zip(expected, found, strict=True)]
    return {
        "name": case.name,
        "rank": plain.trainer.rank,
        "curves": [plain.curve, parts.curve],
        "moved": sum(moved),
        "apart": sum(apart),
        "counts": [len(expected), len(found)],
        "names": [sorted(name for name, _ in one.trainer.weights()) for one in (plain, parts)],
        "scores": [plain.scores, parts.scores],
        "held": held(parts.trainer),
    }


class Run:
    """A trainer over a fresh model of the case."""

    def __init__(self, case: Case, folder: Path, sharding: Fsdp | None) -> None:
        settings = {"optimizer": AdamW(eps=1e-3), "processes": RANKS} | case.settings
        self.spec = sft_spec(**settings, sharding=sharding)
        accelerator = open_accelerator(self.spec)
        at = folder / case.family
        with accelerator.main_process_first():
            if not at.exists():
                fresh_folder(at, case.family)
        loaded = load(at, self.spec.precision)
        model: Any = loaded.model
        if case.untied:
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
        self.case = case
        self.trainer = Trainer(accelerator, model, self.spec)
        self.start = masters(self.trainer)
        self.samples = samples(loaded)
        self.curve: list[tuple[float, float]] = []
        self.scores: list[float] = []

    def trained(self) -> list[Tensor]:
        """Both ways over the same batches: what is cut up adds a dummy to those without an image, which moves the rounding of bf16."""
        trainer = self.trainer
        lengths = [sample.num_tokens for sample in self.samples]
        for _ in range(self.case.steps):
            mine = trainer.assign(lengths, max(lengths) + 40)
            assert len(mine) > 1, "several micro-batches"
            packs = [[self.samples[k] for k in one] for one in mine]
            batches = [pack_or_dummy(one, trainer.layout, True).to(trainer.device) for one in packs]
            self.scores.append(float(trainer.score(batches[0])[0].sum()))
            self.curve.append(trainer.step(batches, self.loss, self.case.lr))
        return masters(trainer)

    def loss(self, batch: PackedBatch, logp_N: Tensor, entropy_N: Tensor) -> Tensor:
        """With adapters what the model was at first is asked between a forward pass and its backward pass."""
        loss = -(logp_N * batch.weight).sum() / 100
        if self.spec.adapter is None:
            return loss
        with self.trainer.at_the_start() as before, torch.no_grad():
            first_N, _ = before(batch)
        return loss + ((logp_N - first_N) ** 2 * batch.weight).sum() / 100


def masters(trainer: Trainer) -> list[Tensor]:
    """The fp32 weights that the optimiser steps, whole."""
    assert trainer.optimizer is not None
    if trainer.spec.sharding is None:
        return [master.detach().clone() for master in trainer.optimizer.masters]
    trained: list[Any] = [p for p in trainer.model.parameters() if p.requires_grad]
    return [param.detach().full_tensor() for param in trained]


def held(trainer: Trainer) -> float:
    """The share of all numbers of the model that lies here between two steps."""
    params: Sequence[Any] = list(trainer.model.parameters())
    return sum(p.to_local().numel() for p in params) / sum(p.numel() for p in params)


def samples(loaded: Loaded) -> list[Sample]:
    """Rows with images and without."""
    made = []
    for place, (row, images) in enumerate(rows_and_images()):
        shown, images = (row, images) if loaded.is_vision else (row | {"images": []}, [])
        prompt = chat.encode_prompt(loaded, shown, Prompt(name="none", thinking=None), images)
        answer = list(range(20 + place, 34 + 2 * place))
        made.append(make_sample(row["id"], prompt.input_ids, answer, loaded.layout, prompt.images))
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]))
