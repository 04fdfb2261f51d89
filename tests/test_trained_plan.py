"""What a plan says of a training in which not all weights are trained: memory, time, checkpoints, and the way out of a model
that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from omrlang.compiler import load
from omrlang.estimate.memory import GIB
from omrlang.estimate.shapes import adapter_params, part_params
from omrlang.plan import Costs
from omrlang.planning import make_plan
from omrlang.render import render
from omrlang.schema import Sft
from omrlang.types import Model, Shape

RECIPE = """omr 1

use std.formats
use std.models
use std.gpus

hardware card = 1 * gpus.a800_80gb { per_node = 1 }

source pictures from jsonl("pictures.jsonl") {
  rows    = 10_000
  columns { question = question, response = response, images = [image] }
  assume { image = 1.0M pixels, response = 400 tokens }
}

sft tuned from pictures with models.qwen2_5_vl_7b on card {
  prompt    = formats.think_answer
  pack      = 8_192
  batch     = 8 packs
  steps     = 100
  lr        = cosine(1e-4)
  recompute = true
  REST
}
"""


def costs(folder: Path, rest: str = "") -> Costs:
    path = folder / "recipe.omr"
    path.write_text(RECIPE.replace("REST", rest))
    (folder / "pictures.jsonl").write_text('{"question": "q", "response": "r", "image": "a.png"}\n')
    recipe, found = load(path)
    assert recipe is not None, render(found)
    made = make_plan(recipe, folder / "state", path).stage("tuned").costs
    assert made is not None
    assert made.memory is not None
    return made


def shape_of(folder: Path) -> Shape:
    costs(folder)
    recipe, _ = load(folder / "recipe.omr")
    assert recipe is not None
    spec = recipe.stages[-1].spec
    assert isinstance(spec, Sft)
    assert isinstance(spec.model, Model)
    assert spec.model.shape is not None
    return spec.model.shape


def part(found: Costs, name: str) -> float:
    assert found.memory is not None
    return found.memory.parts[name].mid or 0.0


ADAPTER = "adapter = lora(rank = 16, alpha = 32)"


def test_the_model_does_not_fit_and_the_plan_says_that_its_adapters_do(tmp_path: Path) -> None:
    whole = costs(tmp_path).memory
    assert whole is not None
    assert whole.verdict == "does not fit"
    assert whole.flips[-1].startswith(f"{ADAPTER}: ")
    adapted = costs(tmp_path, ADAPTER).memory
    assert adapted is not None
    assert whole.flips[-1].endswith(f", {adapted.verdict}")
    assert f"{(adapted.total.mid or 0) / GIB:,.1f} GiB" in whole.flips[-1]


def test_states_are_those_of_what_is_trained(tmp_path: Path) -> None:
    shape = shape_of(tmp_path)
    parts = part_params(shape)
    assert sum(parts.values()) == pytest.approx(shape.num_params)
    everything = costs(tmp_path)
    assert part(everything, "optimiser") == pytest.approx(12 * shape.num_params)
    adapted = costs(tmp_path, ADAPTER)
    own = adapter_params(shape, 16)
    assert part(adapted, "optimiser") == pytest.approx(12 * own)
    assert part(adapted, "gradients") == pytest.approx(4 * own)
    assert part(adapted, "weights") == pytest.approx(2 * (shape.num_params + own))
    towerless = costs(tmp_path, "freeze = [vision, projector]")
    rest = shape.num_params - shape.vision_params
    assert part(towerless, "optimiser") == pytest.approx(12 * rest)
    assert part(towerless, "weights") == part(everything, "weights")
    assert part(towerless, "vision") < part(everything, "vision")


def test_targets_and_rank_count(tmp_path: Path) -> None:
    shape = shape_of(tmp_path)
    found = costs(tmp_path, "adapter = lora(8, 16, targets = [q_proj, v_proj])")
    sides = (3584 + 3584) + (3584 + 512)
    assert part(found, "optimiser") == pytest.approx(12 * 28 * 8 * sides)
    assert adapter_params(shape, 8, ["q_proj", "v_proj"]) == 28 * 8 * sides


def test_frozen_weights_have_no_gradient_to_compute(tmp_path: Path) -> None:
    """A third of the matrix products falls away, of the tower two thirds."""
    whole, adapted, towerless = (
        costs(tmp_path, rest).seconds.mid or 0.0
        for rest in ("", ADAPTER, "freeze = [vision, projector]")
    )
    assert 1 / 3 < adapted / whole < 2 / 3
    assert adapted < towerless < whole


def test_checkpoints_hold_what_is_trained(tmp_path: Path) -> None:
    own = adapter_params(shape_of(tmp_path), 16)
    kept = "checkpoint { every = 50 steps, keep = 1 }"
    found = costs(tmp_path, f"{ADAPTER}\n  {kept}").extra["checkpoints"]
    assert found.mid == pytest.approx(12 * own)
