"""Sampling's roofline against output rates that were published, and training's FLOPs against measured tokens a second.

Sampling: gpustack's performance lab, vLLM 0.11, 1,000 ShareGPT conversations (prompts and answers of some 200 to 250 tokens),
bf16. Training: prime-rl's ``benchmarks/baselines``, full recomputation. Whole plans: the same and NeMo-RL 0.6.
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
from omrlang.plan import Costs, Estimate
from omrlang.planning import make_plan
from omrlang.types import Engine, Gpu, Hardware, Shape, Transformers, Vllm

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


def test_what_an_engine_is_told_sets_its_pace() -> None:
    """Its share of the memory, how many sequences at once, over how many GPUs; on a CPU how many at once alone."""
    tokens = exact(1e6, "tokens", "declared", "as many read as written")
    context = exact(4_000, "tokens", "declared", "long enough to fill the memory")

    def seconds(engine: Engine | None, gpu: Gpu | None = H100, count: int = 1) -> float:
        hardware = Hardware(name="pod", gpu=gpu, count=count)
        kind = engine.kind if engine is not None else "vllm"
        shape = shapes()["qwen3_14b"]
        found = sample_seconds(shape, hardware, kind, tokens, tokens, context, settings=engine)
        assert found.mid is not None
        return found.mid

    plain = seconds(None)
    assert seconds(Vllm()) == plain
    assert seconds(Vllm(max_num_seqs=256)) == plain
    assert plain < seconds(Vllm(gpu_memory=0.5)) < seconds(Vllm(max_num_seqs=4))
    assert seconds(Transformers(batch=4)) == seconds(Vllm(max_num_seqs=4))
    # Weights stand once on four GPUs, which leaves more for the cache.
    assert seconds(Vllm(tensor_parallel=4), count=4) < seconds(Vllm(), count=4)
    assert seconds(Vllm(), gpu=None) == seconds(Vllm(max_num_seqs=64), gpu=None)
    assert seconds(Vllm(max_num_seqs=8), gpu=None) > seconds(Vllm(), gpu=None)


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
    """In the causal convention of the plan."""
    flops = train_flops_per_token(shapes()[model], length)
    used = flops * rate / (gpus * 989e12)
    assert min(guess) <= used <= max(guess), used


# ---- whole plans -----------------------------------------------------------------------------------------------------

HEAD = "omr 1\n\nuse std.formats\nuse std.gpus\nuse std.models\n\nseed = 1\n\n"
TRAINED = """hardware pod = {gpus}

source rows from jsonl("rows.jsonl") {{
  rows = 20_000
  columns {{ question = q, response = r }}
  assume {{ {lengths} }}
}}

{kind} stage from rows with models.{model} on pod {{
  prompt    = formats.think_answer
  sharding  = zero(3)
  recompute = true
  lr        = constant(1e-6)
  {settings}
}}
"""
SFT = "batch = 1 pack / gpu\n  steps = 100\n  pack = {length}"
RL = """algorithm = grpo(clip = [0.2, 0.28])
  reward       = answer_matches
  group        = {group}
  batch        = 64 prompts
  steps        = 100
  temperature  = 1.0
  max_prompt   = 1_024
  max_response = {longest}
  engine       = vllm(gpu_memory = 0.6)
  assume {{ response = {length} tokens, prompt = 200 tokens }}"""


def planned_costs(kind: str, model: str, gpus: str, settings: str, lengths: str) -> Costs:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "r.omr"
        text = TRAINED.format(kind=kind, model=model, gpus=gpus, settings=settings, lengths=lengths)
        path.write_text(HEAD + text)
        recipe, found = load(path)
        assert recipe is not None, found
        costs = make_plan(recipe, Path(folder), path, found).stage("stage").costs
    assert costs is not None
    return costs


def rl_costs(model: str, gpus: str, group: int, length: int, longest: int) -> Costs:
    settings = RL.format(group=group, length=length, longest=longest)
    return planned_costs("rl", model, gpus, settings, "prompt = 200 tokens")


def rates(costs: Costs, seconds: Estimate, gpus: int) -> tuple[float, float]:
    """Tokens a second of one device, at worst and at best."""
    tokens = costs.tokens.mid
    assert tokens is not None
    assert seconds.lo is not None
    assert seconds.hi is not None
    return tokens / seconds.hi / gpus, tokens / seconds.lo / gpus


def test_a_plan_of_supervised_training_has_the_published_rate() -> None:
    """prime-rl: Qwen3-4B, full, 8 H100, 16,384 tokens: 6,215 tokens/s on each."""
    settings = SFT.format(length=16_384)
    lengths = "prompt = 200 tokens, response = 16_000 tokens"
    costs = planned_costs("sft", "qwen3_4b", "8 * gpus.h100_80gb", settings, lengths)
    lo, hi = rates(costs, costs.seconds, 8)
    assert lo <= 6_215 <= hi, (lo, hi)


@pytest.mark.parametrize(
    ("model", "length", "published"),
    [("qwen3_4b", 16_384, 3_253), ("qwen3_4b", 65_536, 3_621), ("qwen3_30b", 16_384, 764)],
    ids=["prime-rl 4B rl 16k", "prime-rl 4B rl 64k", "prime-rl 30B-A3B rl 16k"],
)
def test_a_plan_s_updates_have_the_published_rate(model: str, length: int, published: int) -> None:
    costs = rl_costs(model, "8 * gpus.h100_80gb", 8, length, length)
    lo, hi = rates(costs, costs.extra["seconds_update"], 8)
    assert lo <= published <= hi, (lo, hi)


def test_a_published_step_of_reinforcement_lies_in_its_range() -> None:
    """NeMo-RL 0.6, Qwen3-30B-A3B on 32 H100, 2,048 rollouts of 3,200 tokens a step, on policy: 192 s."""
    costs = rl_costs("qwen3_30b", "32 * gpus.h100_80gb", 32, 3_200, 16_384)
    assert costs.extra["rollouts"].mid == 100 * 2_048
    assert costs.seconds.lo is not None
    assert costs.seconds.hi is not None
    assert costs.seconds.lo / 100 <= 192 <= costs.seconds.hi / 100
