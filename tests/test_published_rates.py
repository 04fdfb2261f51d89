"""Sampling's roofline against output rates that were published, and training's FLOPs against measured tokens a second.

Sampling: gpustack's performance lab, vLLM 0.11, 1,000 ShareGPT conversations (prompts and answers of some 200 to 250 tokens),
bf16. Training: prime-rl's ``benchmarks/baselines``, full recomputation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from omrlang.compiler import load
from omrlang.estimate import assumptions
from omrlang.estimate.compute import sample_seconds, train_flops_per_token
from omrlang.estimate.ranges import between, exact
from omrlang.types import Gpu, Hardware, Shape

H100 = Gpu(name="h100", memory_gib=80, tflops=989, bandwidth_tb_s=3.35)
A100 = Gpu(name="a100", memory_gib=80, tflops=312, bandwidth_tb_s=2.04)
NAMES = ("qwen3_14b", "qwen3_32b", "qwen3_235b", "qwen3_0_6b", "qwen3_4b", "qwen3_30b")


@cache
def shapes() -> dict[str, Shape]:
    lines = [f"model {name} = models.{name}" for name in NAMES]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "r.omr"
        path.write_text("\n".join(["omr 1", "use std.models", *lines]) + "\n")
        recipe, _ = load(path)
    assert recipe is not None
    return {model.name: model.shape for model in recipe.models if model.shape is not None}


@pytest.mark.parametrize(
    ("model", "gpu", "count", "rate"),
    [
        ("qwen3_14b", H100, 1, 3_174),
        ("qwen3_14b", A100, 1, 1_887),
        ("qwen3_32b", H100, 1, 1_132),
        ("qwen3_32b", A100, 1, 832),
        ("qwen3_235b", H100, 8, 4_015),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_published_output_rates_lie_in_the_range(
    model: str, gpu: Gpu, count: int, rate: float
) -> None:
    hardware = Hardware(name="pod", gpu=gpu, count=count)
    context = between(250, 400, 600, "tokens", "assumed", "ShareGPT")
    tokens = exact(1e6, "tokens", "declared", "as many read as written")
    found = sample_seconds(shapes()[model], hardware, "vllm", tokens, tokens, context)
    assert found.lo is not None
    assert found.hi is not None
    assert 1e6 / found.hi <= rate <= 1e6 / found.lo


@pytest.mark.parametrize(
    ("model", "gpus", "length", "rate", "guess"),
    [
        ("qwen3_0_6b", 1, 8_192, 26_005, assumptions.MFU_SMALL),
        ("qwen3_4b", 8, 16_384, 49_717, assumptions.MFU_SFT),
        ("qwen3_4b", 8, 16_384, 26_026, assumptions.MFU_RL),
        ("qwen3_30b", 8, 16_384, 6_113, assumptions.MFU_EXPERTS),
    ],
    ids=["0.6B sft 8k", "4B sft 16k", "4B rl 16k", "30B-A3B rl 16k"],
)
def test_measured_training_rates_are_within_the_assumed_utilisation(
    model: str, gpus: int, length: int, rate: float, guess: tuple[float, float, float]
) -> None:
    """In the causal convention of the plan; a fifth more or less for what the convention of the source left open."""
    flops = train_flops_per_token(shapes()[model], length)
    used = flops * rate / (gpus * 989e12)
    assert min(guess) / 1.2 <= used <= max(guess) * 1.2, used
