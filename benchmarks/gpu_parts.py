"""A model's size to its random weights on a device, to packed batches, and to what `omr plan` says of them.

The shared parts of `gpu.py`: shapes are those of `stdlib/models.omr`, built where they are trained, so that a model of
eight billion parameters stands there in seconds.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from omr_runtime.models.families import Layout
from omr_runtime.models.families.qwen_vl import patch_dim
from omr_runtime.train.batching import PackedBatch, Sample, make_sample, pack
from omr_runtime.train.loop import Trainer, open_accelerator
from omr_runtime.train.losses import cross_entropy
from omrlang.compiler import load
from omrlang.estimate.compute import train_flops_per_token, train_seconds, vision_flops_per_token
from omrlang.estimate.jobs import job_of
from omrlang.estimate.memory import GIB, measure
from omrlang.estimate.ranges import exact
from omrlang.estimate.shapes import text_params
from omrlang.plan import Estimate
from omrlang.schema import Rl, Sft
from omrlang.types import Shape

Row: TypeAlias = dict[str, Any]
ROOT = Path(__file__).parents[1]
PEAK_FLOPS = 989e12
"""Dense bf16 of an H100 SXM, as in stdlib/gpus.omr."""

SEED = 11
RATE = 1e-6
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
FIRST_TOKEN = 100
"""Drawn tokens are from here on, so that none is an image's."""


# ---- models ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """What a config needs besides the shape: the vision tower, and whether embedding and head are one matrix."""

    name: str
    shape: Shape
    tied: bool
    vision_layers: int = 32
    vision_hidden: int = 1280
    vision_heads: int = 16
    vision_intermediate: int = 3420

    @property
    def image_token(self) -> int:
        return self.shape.vocab - 8


@cache
def recipe_parts() -> tuple[dict[str, Shape], Sft, Rl]:
    """Shapes of the standard library, and an sft and an rl stage on one H100 as the compiler reads them."""
    lines = [
        f"model {name} = models.qwen2_5_vl_{name.removeprefix('m')}" for name in ("m3b", "m7b")
    ]
    text = "\n".join(["omr 1", "use std.formats", "use std.gpus", "use std.models", *lines, RECIPE])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.omr"
        path.write_text(text)
        recipe, diagnostics = load(path)
    assert recipe is not None, diagnostics
    shapes = {m.name: m.shape for m in recipe.models if m.shape is not None}
    specs = {stage.spec.name: stage.spec for stage in recipe.stages}
    sft, rl = specs["tuned"], specs["reasoner"]
    assert isinstance(sft, Sft)
    assert isinstance(rl, Rl)
    return shapes, sft, rl


RECIPE = """
hardware one = 1 * gpus.h100_80gb

source questions from jsonl("questions.jsonl") {
  rows = 1_000
  columns { question = question, answer = answer }
}

sft tuned from questions with m3b on one {
  prompt = formats.think_answer
  pack   = 16_384
  batch  = 1 packs
  steps  = 1
  lr     = constant(1e-5)
}

rl reasoner from questions with m3b on one {
  prompt       = formats.think_answer
  algorithm    = gspo(clip = [3e-4, 4e-4])
  reward       = answer_matches
  group        = 16
  batch        = 4 prompts
  steps        = 1
  lr           = constant(1e-6)
  temperature  = 1.0
  max_prompt   = 1_024
  max_response = 4_096
}
"""


def sizes() -> dict[str, Size]:
    """The models that are measured. On a CPU all are toys of the same make."""
    shapes, _, _ = recipe_parts()
    if ON_GPU:
        return {"3b": Size("3b", shapes["m3b"], True), "7b": Size("7b", shapes["m7b"], False)}
    return {name: toy(name, tied) for name, tied in (("3b", True), ("7b", False))}


def small() -> Size:
    """Real widths and few layers: what correctness is checked on, in fp32 too."""
    if not ON_GPU:
        return toy("small", True)
    shape = recipe_parts()[0]["m3b"].model_copy(update={"layers": 4, "vocab": 32_000})
    return Size("small", shape, True, vision_layers=4)


def toy(name: str, tied: bool) -> Size:
    shape = Shape(
        num_params=300_000, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, vocab=512,
        intermediate=192, vision_params=100_000,
    )  # fmt: skip
    return Size(name, shape, tied, 2, 64, 4, 96)


def config_of(size: Size) -> Any:
    """Qwen2.5-VL's config of that size; the last of every four layers of the tower attends to the whole image."""
    s, token = size.shape, size.image_token
    half = s.head_dim // 2
    sections = [half // 4, (half - half // 4) // 2]
    text = {
        "vocab_size": s.vocab,
        "hidden_size": s.hidden,
        "intermediate_size": s.intermediate,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "max_position_embeddings": 128_000,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [*sections, half - sum(sections)],
            "rope_theta": 1_000_000.0,
        },
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "num_heads": size.vision_heads,
        "intermediate_size": size.vision_intermediate,
        "out_hidden_size": s.hidden,
        "fullatt_block_indexes": list(range(size.vision_layers))[3::4],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=size.tied,
        image_token_id=token,
        video_token_id=token + 1,
        vision_start_token_id=token + 2,
        vision_end_token_id=token + 3,
    )


def build(size: Size, dtype: torch.dtype = torch.bfloat16) -> Any:
    """The model with random weights, made on the device that trains it."""
    torch.manual_seed(SEED)
    with torch.device(DEVICE):
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            config_of(size), dtype=dtype, attn_implementation="sdpa"
        )
    assert next(model.parameters()).device.type == DEVICE.type
    return model


def free() -> None:
    """Give back what a row before this one held."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


# ---- batches -----------------------------------------------------------------------------------------------------


def lengths(count: int, median: float, sigma: float, most: int, seed: int = SEED) -> list[int]:
    """Log-normal lengths, cut at ``most``."""
    drawn = np.random.default_rng(seed).lognormal(math.log(median), sigma, count)
    return [int(min(most, max(8, x))) for x in drawn]


def fill_pack(total: int, median: float, sigma: float) -> list[int]:
    """Log-normal lengths that fill a pack of ``total`` tokens to the last."""
    found: list[int] = []
    for length in lengths(1024, median, sigma, total // 2):
        if sum(found) + length + 8 > total:
            break
        found.append(length)
    return [*found, total - sum(found)]


class Maker:
    """Samples of drawn tokens, with or without an image of drawn patches."""

    def __init__(self, size: Size, seed: int = SEED) -> None:
        self.size = size
        self.layout = Layout.of(config_of(size))
        self.generator = torch.Generator().manual_seed(seed)

    def tokens(self, count: int) -> list[int]:
        last = self.size.image_token
        drawn = torch.randint(min(FIRST_TOKEN, last // 2), last, (count,), generator=self.generator)
        return drawn.tolist()

    def text(self, name: str, prompt: int, response: int) -> Sample:
        return make_sample(name, self.tokens(prompt), self.tokens(response), self.layout)

    def pictured(self, name: str, side: int, prompt: int, response: int) -> Sample:
        """``side`` is the image's in patches; a square of ``merge`` of them is a token."""
        held = side * side // merge_of(self.layout) ** 2
        ids = self.tokens(prompt)
        ids[1:1] = [self.layout.image_token_id or 0] * held
        pixels = torch.randn(side * side, patch_dim(self.layout.config), generator=self.generator)
        images = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, side, side]])}
        return make_sample(name, ids, self.tokens(response), self.layout, images)


def merge_of(layout: Layout) -> int:
    """The side of the square of patches that is one token."""
    return int(layout.config.vision_config.spatial_merge_size)


def text_batch(size: Size, total: int, median: float = 1200.0, sigma: float = 0.8) -> PackedBatch:
    """A full pack of samples, an eighth of each its prompt."""
    maker = Maker(size)
    parts = fill_pack(total, median if ON_GPU else total / 4, sigma)
    samples = [
        maker.text(f"row{i}", max(1, n // 8), n - max(1, n // 8)) for i, n in enumerate(parts)
    ]
    return pack(samples).to(DEVICE)


def image_batch(size: Size, total: int, side: int) -> PackedBatch:
    """A full pack of samples with an image each, about as many tokens of text as of image."""
    maker = Maker(size)
    held = side * side // merge_of(maker.layout) ** 2
    count = max(1, total // (2 * held))
    text = total // count - held
    each = [maker.pictured(f"row{i}", side, text // 8, text - text // 8) for i in range(count)]
    return pack(each).to(DEVICE)


def image_tokens(size: Size, batch: PackedBatch) -> int:
    return int((batch.input_ids == size.image_token).sum())


def sft_loss(*batches: PackedBatch) -> Callable[[PackedBatch, Tensor, Tensor], Tensor]:
    """The mean over the weighted tokens of all of ``batches``."""
    weighted = float(sum(batch.num_weighted for batch in batches))
    return lambda batch, logp_N, entropy_N: cross_entropy(logp_N, batch.weight, weighted)


# ---- the clock ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Seconds of one repetition, and the device's peak in GiB, allocated and reserved; 0 on a CPU."""

    seconds: float
    allocated: float
    reserved: float


def wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def measured(work: Callable[[], object], repeats: int = 2, warm: int = 1) -> Measured:
    """The fastest of ``repeats`` after ``warm`` runs that do not count."""
    for _ in range(warm):
        work()
    wait()
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - start)
    if not ON_GPU:
        return Measured(best, 0.0, 0.0)
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return Measured(best, peaks[0] / GIB, peaks[1] / GIB)


# ---- the convention of utilisation, and the plan -------------------------------------------------------------------


def model_flops(size: Size, batches: Sequence[PackedBatch], trained: bool = True) -> float:
    """Forward and backward: 6 N a token and 6 L d s for causal attention within its segment, three times 2 V for the
    patches of an image token. What is computed again in the backward pass is no model FLOP. Without ``trained`` weights
    have no gradient: 4 N, and the tower's forward alone."""
    shape = size.shape
    total = 0.0
    for batch in batches:
        for length in batch.segments.lengths:
            total += length * train_flops_per_token(shape, length)
        total += (3 if trained else 1) * image_tokens(size, batch) * vision_flops_per_token(shape)
        if not trained:
            total -= 2 * text_params(shape) * batch.num_tokens
    return total


def spec_of(kind: Literal["sft", "rl"], pack: int, recompute: bool, **changes: Any) -> Sft | Rl:
    """The stage's settings; on a CPU without its GPU."""
    _, sft, rl = recipe_parts()
    spec: Sft | Rl = sft if kind == "sft" else rl
    names = {"pack": pack} if kind == "sft" else {"micro_batch": pack}
    return spec.model_copy(update={**names, "recompute": recompute, **changes})


def open_trainer(model: Any, spec: Sft | Rl) -> Trainer:
    """One trainer of this process."""
    return Trainer(accelerator(), model, spec)


@cache
def accelerator() -> Accelerator:
    return open_accelerator(recipe_parts()[1])


def planned_seconds(size: Size, spec: Sft | Rl, batches: Sequence[PackedBatch]) -> Estimate:
    """What `omr plan` says of forward and backward passes over ``batches``."""
    tokens = sum(batch.num_tokens for batch in batches)
    count = sum(batch.num_samples for batch in batches)
    pictured = sum(image_tokens(size, batch) for batch in batches)
    return train_seconds(
        spec,
        size.shape,
        exact(tokens, "tokens", "declared", "of the batches"),
        exact(tokens / count, "tokens", "declared", "of a row"),
        exact(pictured / tokens, "", "declared", "of images"),
    )


def planned_bytes(
    size: Size, spec: Sft | Rl, batches: Sequence[PackedBatch], lora: int
) -> Estimate:
    """What `omr plan` says of the peak, for the longest of ``batches``."""
    tokens = max(batch.num_tokens for batch in batches)
    share = max(image_tokens(size, batch) / batch.num_tokens for batch in batches)
    job = job_of(spec, size.shape, exact(share, "", "declared", "of images"), None)
    return measure(replace(job, tokens=tokens, lora=lora, engine=None)).total


def row(
    what: str,
    size: Size,
    batches: Sequence[PackedBatch],
    found: Measured,
    spec: Sft | Rl | None = None,
    trained: bool = True,
    lora: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """A measured row; with ``spec`` the plan's figures stand beside it."""
    tokens = sum(batch.num_tokens for batch in batches)
    made: dict[str, Any] = {
        "what": what,
        "tokens": tokens,
        "seconds": found.seconds,
        "tokens_per_s": tokens / found.seconds,
        "mfu": model_flops(size, batches, trained) / found.seconds / PEAK_FLOPS,
        "allocated_gib": found.allocated,
        "reserved_gib": found.reserved,
    }
    if spec is not None:
        made |= _beside("seconds", found.seconds, planned_seconds(size, spec, batches), 1.0)
        made |= _beside("gib", found.reserved, planned_bytes(size, spec, batches, lora), GIB)
    return made | more


def _beside(name: str, found: float, planned: Estimate, unit: float) -> dict[str, Any]:
    ends = [None if end is None else end / unit for end in (planned.lo, planned.mid, planned.hi)]
    ratio = found / ends[1] if ends[1] else None
    return {f"plan_{name}": ends, f"{name}_over_plan": ratio}


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what is expected."""
    wanted = expected.detach().double()
    return float((found.detach().double() - wanted).norm() / wanted.norm().clamp(min=1e-30))


# ---- where figures go ------------------------------------------------------------------------------------------------


log = logging.getLogger("gpu")


@dataclass
class Out:
    """Where a phase writes: rows as JSON lines, a profile as text."""

    folder: Path
    phase: str

    def write(self, found: Row) -> None:
        found = {"phase": self.phase, **found}
        with (self.folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)

    @contextmanager
    def row(self, what: str) -> Iterator[None]:
        """A row that fails says so and lets the next be measured."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            self.write({"what": what, "failed": "out of memory"})
            log.warning("%s: %s", what, str(error).splitlines()[0])
        except Exception as error:
            first = str(error).partition("\n")[0]
            self.write({"what": what, "failed": f"{type(error).__name__}: {first}"})
            log.exception(what)
        free()
