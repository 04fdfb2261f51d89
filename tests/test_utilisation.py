"""Model FLOPs of a step: those of the plan for the same model, those that torch counts, and what a run says of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from test_rl import made, metric, table
from torch.utils.flop_counter import FlopCounterMode
from training_parts import drawn_rows, fresh_folder, sft_spec, sft_work

from omr_runtime.models import load
from omr_runtime.models.families import Layout
from omr_runtime.stages.sft import run
from omr_runtime.train import rl
from omr_runtime.train.adapters import choose_trained
from omr_runtime.train.batching import make_sample, pack
from omr_runtime.train.segments import Segments
from omr_runtime.train.utilisation import Cost, cost_of, pairs_seen, speed
from omrlang.estimate.compute import train_flops_per_token, vision_flops_per_token
from omrlang.estimate.shapes import adapter_params, shape_of, text_params
from omrlang.types import Fresh, Gpu, Hardware, Lora, Model

FAMILIES = get_args(Fresh.model_fields["family"].annotation)


def loaded_of(folder: Path, family: str) -> Any:
    return load(fresh_folder(folder, family))


def shape_like(family: str) -> Any:
    """Of what `fresh_folder` makes."""
    settings: dict[str, Any] = {"layers": 2, "hidden": 64, "heads": 4}
    if family != "qwen2":
        settings |= {"vision_layers": 2, "vision_hidden": 64}
    return shape_of(Model(name="m", source=Fresh.model_validate({"family": family, **settings})))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_token_costs_what_the_plan_says(family: str, tmp_path: Path) -> None:
    loaded, shape = loaded_of(tmp_path, family), shape_like(family)
    cost = cost_of(loaded.model, sft_spec())
    sample = make_sample("a", list(range(60, 80)), list(range(60, 80)), loaded.layout)
    assert cost.of([pack([sample])]) == pytest.approx(40 * train_flops_per_token(shape, 40))
    assert cost.image_patch * shape.merge**2 == pytest.approx(3 * vision_flops_per_token(shape))


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({"freeze": ("vision", "projector")}, 6),
        ({"freeze": ("language",)}, 4),
        ({"freeze": ("vision", "projector", "embeddings", "language")}, 2),
    ],
)
def test_what_is_frozen_costs_less(changes: dict[str, Any], each: float, tmp_path: Path) -> None:
    loaded, shape = loaded_of(tmp_path, "qwen2_5_vl"), shape_like("qwen2_5_vl")
    cost = cost_of(loaded.model, sft_spec(**changes))
    assert cost.token == pytest.approx(each * text_params(shape))
    assert (cost.image_patch < cost_of(loaded.model, sft_spec()).image_patch) == (
        "vision" in changes["freeze"]
    )


def test_adapters_are_passed_beside_what_they_adapt(tmp_path: Path) -> None:
    loaded, shape = loaded_of(tmp_path, "qwen2"), shape_like("qwen2")
    spec = sft_spec(adapter=Lora(rank=4, alpha=8.0))
    choose_trained(loaded.model, spec)
    cost = cost_of(loaded.model, spec)
    own = adapter_params(shape, 4, spec.adapter.targets if spec.adapter else ())
    assert cost.token == pytest.approx(4 * text_params(shape) + 6 * own)


def test_torch_counts_the_same(tmp_path: Path) -> None:
    """A forward and a backward pass of transformers, by torch's counter: it takes attention as not causal, and no biases and norms."""
    loaded = loaded_of(tmp_path, "qwen2")
    loaded.model.set_attn_implementation(
        "eager"
    )  # the counter does not know the CPU's fused attention
    ids = torch.arange(60, 160)[None] % 90 + 40
    with FlopCounterMode(display=False) as counter:
        loaded.model(input_ids=ids).logits.sum().backward()
    cost = cost_of(loaded.model, sft_spec())
    counted = cost.token * 100 + 2 * cost.pair * pairs_seen(Segments((100,)))
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


def test_a_shared_prompt_is_read_once() -> None:
    """Nine tokens of a prompt, two responses of four: the prompt's half square, and each response's own and the prompt."""
    shared = Segments((9, 4, 4), ((0, 0), (0, 9), (0, 9)))
    alone = Segments((13, 13))
    assert pairs_seen(shared) == 9 * 9 / 2 + 2 * (4 * 9 + 4 * 4 / 2)
    assert pairs_seen(alone) - pairs_seen(shared) == 9 * 9 / 2


def test_packed_samples_do_not_see_each_other() -> None:
    assert pairs_seen(Segments((10, 30))) == 10 * 10 / 2 + 30 * 30 / 2


def test_the_share_of_the_peak_is_of_each_gpu_alone() -> None:
    gpu = Gpu(name="card", memory_gib=80.0, tflops=100.0, bandwidth_tb_s=3.0)
    spec = sft_spec(hardware=Hardware(name="node", gpu=gpu, count=4))
    found = speed(spec, flops=4e14, seconds=2.0, processes=4, on_gpu=True)
    assert found == pytest.approx({"tflops": 50.0, "mfu": 0.5})
    assert speed(spec, 4e14, 2.0, 4, on_gpu=False) == {"tflops": 50.0}
    assert set(speed(sft_spec(), 1.0, 1.0, 1, on_gpu=True)) == {"tflops"}


def test_runs_tell_it_for_each_step(tmp_path: Path) -> None:
    base = fresh_folder(tmp_path / "base")
    work = sft_work(tmp_path / "sft", base, drawn_rows(tmp_path / "sft", 12), sft_spec(steps=3))
    run(work)
    assert len(metric(work, "tflops")) == 3
    assert min(metric(work, "tflops")) > 0
    assert metric(work, "mfu") == [], "a processor declares no peak"
    rolled = made(tmp_path / "rl", base)
    rl.train(rolled)
    assert len(metric(rolled, "tflops")) == len(metric(rolled, "update_s"))
    named = {line["name"] for one in (work, rolled) for line in table(one, "metric")}
    assert {re.sub("^reward/.*", "reward/NAME", name) for name in named} <= documented()


def documented() -> set[str]:
    """The figures that docs/training.md explains."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    cells = (line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    return {name for cell in cells for name in re.findall("`([^`]+)`", cell)}


def test_images_are_counted_by_their_patches() -> None:
    assert Cost(0, 0, image_patch=2.0, patch=14)._patches(pictured((5, 20))) == 5
    assert Cost(0, 0, image_patch=2.0, patch=14)._patches(pictured((2, 3, 28, 42))) == 2 * 2 * 3


def pictured(shape: tuple[int, ...]) -> Any:
    return replace(
        pack([make_sample("a", [50, 51], [52], Layout())]),
        images={"pixel_values": torch.zeros(shape)},
    )
