"""Reinforcement learning with rollouts by vLLM itself: the trainer's weights reach the engine at every step."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from test_rl import launch, metric, rl_spec, rl_work, table
from training_parts import drawn_rows, fresh_folder

from omrlang.types import Amount, Constant, Lora, TokenTruncated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


@pytest.mark.parametrize("adapter", [None, Lora(rank=8, alpha=64)], ids=["whole", "adapters"])
def test_pushed_weights_keep_engine_and_trainer_together(
    tmp_path: Path, adapter: Lora | None
) -> None:
    base = fresh_folder(tmp_path / "base", "qwen2", hidden=128)
    rows = drawn_rows(tmp_path, 8, with_images=False)
    spec = rl_spec(steps=4, engine=None, precision="bf16", lr=Constant(peak=3e-3), adapter=adapter)
    work = rl_work(tmp_path, base, rows, spec)
    launch(work)
    rollouts = table(work, "rollout")
    assert len(rollouts) == 4 * 4 * 4
    apart = metric(work, "rollout_kl")
    # A step all of whose groups lack spread reads none, and has no such figure.
    assert len(apart) == sum(flat < 4 for flat in metric(work, "zero_variance_groups")) > 0
    assert max(apart) < 5e-3
    by_step = [
        sum(line["mean_logprob"] for line in rollouts if line["step"] == step) for step in (1, 4)
    ]
    assert abs(by_step[0] - by_step[1]) > 0.5


def test_one_step_behind_it_draws_in_a_thread(tmp_path: Path) -> None:
    """In the first step engine and trainer have the same weights, later the trainer's are one update further."""
    base = fresh_folder(tmp_path / "base", "qwen2", hidden=128)
    rows = drawn_rows(tmp_path, 8, with_images=False)
    spec = rl_spec(steps=4, engine=None, precision="bf16", lr=Constant(peak=3e-3), behind=1)
    work = rl_work(tmp_path, base, rows, spec)
    launch(work)
    assert len(table(work, "rollout")) == 4 * 4 * 4
    first, *later = metric(work, "rollout_kl")
    assert first < 5e-3
    assert max(later) > 2 * first
    assert len(metric(work, "wait_s")) == 4


@pytest.mark.parametrize("family", ["qwen2", "qwen2_5_vl"])
def test_it_draws_on_where_a_step_left_off(tmp_path: Path, family: str) -> None:
    """Also after pictures: what was begun follows the prompt, and each token is as the weights of its step have it."""
    base = fresh_folder(tmp_path / "base", family, hidden=128)
    rows = drawn_rows(tmp_path, 8, with_images=family != "qwen2")
    spec = rl_spec(
        steps=4,
        engine=None,
        group=2,
        max_response=24,
        oversample=Amount(value=4, unit="prompts"),
        rollout_correction=TokenTruncated(),
        lr=Constant(peak=1e-6),
    )
    work = rl_work(tmp_path, base, rows, spec)
    launch(work)
    assert sum(metric(work, "carried_tokens")) > 0
    assert max(metric(work, "rollout_kl")) < 5e-3, (
        "the weights hardly move: so what drew is what learns"
    )
    rollouts = table(work, "rollout")
    assert len({line["id"] for line in rollouts}) == len(rollouts) == (8 + 3 * 4) * 2
    assert max(line["num_tokens"] for line in rollouts) <= 24
