"""Packed equals unpacked: log-probabilities and gradients, for text and for images; and which rows share a pack."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from omr_runtime.engines.decode import Ask, Draw, samples
from omr_runtime.models import load
from omr_runtime.models.families.qwen_vl import patch_dim
from omr_runtime.train.attention import use_segment_attention
from omr_runtime.train.batching import (
    Layout,
    PackPlan,
    Sample,
    dummy_sample,
    first_fit_decreasing,
    make_sample,
    micro_batches,
    pack,
    shared_tokens,
    split_by_cost,
    steps_of,
    together,
)
from omr_runtime.train.logprobs import Scorer
from omr_runtime.train.patches import PatchProduct, use_patch_products
from omr_runtime.train.segments import Segments, groups
from tests.training_parts import fresh_folder

IMAGES = [(6, 6), None, (4, 8), (2, 2), None]
TEXT = 6
"""Prompt tokens beside an image's."""


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _model(fresh_folder(tmp_path_factory.mktemp("vision")))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _model(fresh_folder(tmp_path_factory.mktemp("text"), "qwen2"))


def _model(folder: Path) -> Any:
    model: Any = load(folder).model
    _loud(model)
    return model


def _loud(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # large weights, so that a token seen by mistake would show
                parameter.normal_(std=0.15, generator=generator)


def _samples(layout: Layout, with_images: bool) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)

    def tokens(num: int) -> list[int]:
        return torch.randint(10, 60, (num,), generator=generator).tolist()

    samples = []
    for i, size in enumerate(IMAGES):
        prompt, images = tokens(TEXT), None
        if with_images and size is not None:
            assert layout.image_token_id is not None
            merge = layout.config.vision_config.spatial_merge_size
            prompt[2:2] = [layout.image_token_id] * (size[0] * size[1] // merge**2)
            pixels = torch.randn(size[0] * size[1], patch_dim(layout.config), generator=generator)
            images = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, *size]])}
        samples.append(make_sample(f"row{i}", prompt, tokens(3 + 4 * i), layout, images))
    return samples


def _unpacked(model: Any, sample: Sample) -> torch.Tensor:
    """Log-probabilities of the response by transformers alone: one sample, plain SDPA, positions of its own."""
    model.set_attn_implementation("sdpa")
    ids = torch.tensor([sample.input_ids])
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if sample.images is not None:
        inputs |= sample.images
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
        model.model.rope_deltas = None
    logp = torch.log_softmax(model(**inputs).logits[0].float(), -1)
    targets = ids[0, sample.num_prompt :]
    return logp[sample.num_prompt - 1 : -1].gather(1, targets[:, None])[:, 0]


def _gradients(model: Any, logp_N: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(0.5, 1.5, len(logp_N))
    grads = torch.autograd.grad(
        (logp_N * weights).sum(), list(model.parameters()), allow_unused=True
    )
    return torch.cat([g.flatten() for g in grads if g is not None])


def _check_equal(model: Any, samples: list[Sample]) -> None:
    alone = torch.cat([_unpacked(model, sample) for sample in samples])
    alone_grad = _gradients(model, alone)
    packed, _ = Scorer(model)(pack(samples))
    packed_grad = _gradients(model, packed)
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=1e-5)
    assert (packed_grad - alone_grad).norm() / alone_grad.norm() < 1e-5


def test_packed_text_equals_unpacked(text: Any) -> None:
    _check_equal(text, _samples(Layout.of(text.config), False))


def test_packed_images_equal_unpacked_with_gradients_of_the_vision_tower(vision: Any) -> None:
    samples = _samples(Layout.of(vision.config), True)
    _check_equal(vision, samples)
    logp_N, _ = Scorer(vision)(pack(samples))
    logp_N.sum().backward()
    assert vision.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0
    vision.zero_grad()


# ---- a prompt that a group shares ----------------------------------------------------------------------------------


def _of_groups(layout: Layout, with_images: bool) -> list[Sample]:
    """Each sample of ``_samples`` with three more responses to its prompt; one stays alone."""
    generator = torch.Generator().manual_seed(2)
    made = []
    for i, one in enumerate(_samples(layout, with_images)):
        prompt = one.input_ids[: one.num_prompt]
        for n in range(1 if i == 3 else 4):
            response = torch.randint(10, 60, (1 + 5 * n,), generator=generator).tolist()
            made.append(
                make_sample(f"{i}/{n}", prompt, response, layout, one.images, group=f"row{i}")
            )
    return made


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_shared_prompt_is_as_good_as_one_for_each(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    samples = _of_groups(Layout.of(model.config), kind == "vision")
    batch = pack(samples)
    prompts = {sample.group: sample.num_prompt for sample in samples}
    assert batch.num_tokens == sum(prompts.values()) + sum(s.num_response for s in samples)
    _check_equal(model, samples)


def _with_window(path: Path) -> Any:
    """A text model whose first layer sees five tokens."""
    folder = fresh_folder(path, "qwen2")
    config = json.loads((folder / "config.json").read_text())
    window = {"use_sliding_window": True, "sliding_window": 5}
    layers = {"layer_types": ["sliding_attention", "full_attention"]}
    (folder / "config.json").write_text(json.dumps(config | window | layers))
    return _model(folder)


@pytest.mark.parametrize("shared", [False, True])
def test_layers_that_see_so_many_tokens_alone(shared: bool, tmp_path: Path) -> None:
    """Sliding windows, as Gemma, Mistral and some Qwen have them: packed, and by the engine."""
    model = _with_window(tmp_path)
    rows = _of_groups(Layout(), False) if shared else _samples(Layout(), False)
    before, _ = Scorer(model)(pack(rows))
    _check_equal(model, rows)
    model.get_decoder().layers[0].self_attn.sliding_window = None
    far, _ = Scorer(model)(pack(rows))
    assert (before - far).abs().max() > 1e-2


TEXT_MODELS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"sliding_window": 5, "head_dim": 16},
    "qwen3": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 5},
}


@pytest.mark.parametrize("kind", TEXT_MODELS)
def test_packed_equals_unpacked_in_other_text_models(kind: str) -> None:
    numbers = {"vocab_size": 70, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4} | TEXT_MODELS[kind]
    config = transformers.AutoConfig.for_model(kind, **numbers, **heads, pad_token_id=0)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    _loud(model.eval())
    _check_equal(model, _samples(Layout.of(config), False))
    _check_equal(model, _of_groups(Layout.of(config), False))


def test_the_engine_sees_no_further_than_a_layer_does(tmp_path: Path) -> None:
    model = _with_window(tmp_path)
    prompts = [list(sample.input_ids) for sample in _samples(Layout(), False)]
    found = samples(model, [Ask(ids, (0,)) for ids in prompts], Draw(0.0, 9, frozenset()), 3)
    for one, ids in zip(found, prompts, strict=True):
        known = torch.tensor([ids])
        out = model.generate(
            input_ids=known,
            attention_mask=torch.ones_like(known),
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=-1,
        )
        assert one.token_ids == out[0, len(ids) :].tolist()


def test_a_shared_prompt_may_stand_anywhere_before(text: Any) -> None:
    """The samples of a group need not be neighbours: other rows between them change nothing."""
    samples = _of_groups(Layout(), False)
    mixed = samples[::2] + samples[1::2]
    _check_equal(text, mixed)


def test_groups_are_packed_side_by_side_within_the_budget() -> None:
    samples = [make_sample(f"{i}", [1] * 10, [2] * 5, Layout(), group="a") for i in range(5)]
    samples += [make_sample("alone", [1] * 10, [2] * 50, Layout())]
    assert together(samples, 25) == [[0, 1, 2], [3, 4], [5]]
    assert together(samples, 1_000) == [[0, 1, 2, 3, 4], [5]]
    assert together(samples, 1) == [[0], [1], [2], [3], [4], [5]]
    assert shared_tokens(samples[:3]) == 25


def test_the_first_layer_of_a_tower_is_one_product(vision: Any) -> None:
    """Values and gradients of transformers' convolution; under other inputs it stays one."""
    ours = vision.model.visual.patch_embed.proj
    use_patch_products(vision)
    assert type(ours) is PatchProduct
    plain = torch.nn.Conv3d(
        ours.in_channels, ours.out_channels, ours.kernel_size, ours.stride, bias=False
    )
    plain.load_state_dict(ours.state_dict())
    for scale in (1, 2):
        size = (ours.kernel_size[0], *(scale * n for n in ours.kernel_size[1:]))
        x = torch.randn(5, ours.in_channels, *size)
        found = [
            (y := layer(x), *torch.autograd.grad(y.cos().sum(), layer.weight))
            for layer in (ours, plain)
        ]
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_positions_are_those_of_transformers(vision: Any) -> None:
    layout = Layout.of(vision.config)
    for sample in _samples(layout, True):
        ids = torch.tensor([sample.input_ids])
        types = (ids == layout.image_token_id).int()
        grids = sample.images["image_grid_thw"] if sample.images else None
        expected, _ = vision.model.get_rope_index(ids, types, grids)
        assert sample.positions is not None
        assert (torch.from_numpy(sample.positions) == expected[:, 0]).all()


def test_a_cache_would_let_samples_see_each_other(text: Any) -> None:
    """The trap that ``use_cache=False`` avoids: with a cache transformers leaves the mask out and says nothing."""
    samples = _samples(Layout(), False)
    batch = pack(samples)
    assert batch.model_inputs()["use_cache"] is False
    text.set_attn_implementation("sdpa")
    plain = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    masked = text(**plain, use_cache=False).logits
    leaking = text(**plain, use_cache=True).logits
    use_segment_attention(text)
    packed = text(**batch.model_inputs()).logits
    torch.testing.assert_close(packed, masked, atol=2e-5, rtol=1e-5)
    assert (leaking - masked).abs().max() > 0.1


def test_generation_is_as_before(vision: Any) -> None:
    sample = _samples(Layout.of(vision.config), True)[0]
    ids = torch.tensor([sample.input_ids])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == vision.config.image_token_id).int(),
        **(sample.images or {}),
    }
    outputs = []
    for change in (
        lambda: vision.set_attn_implementation("sdpa"),
        lambda: use_segment_attention(vision),
    ):
        change()
        outputs.append(vision.generate(**inputs, max_new_tokens=12, do_sample=False))
    assert outputs[0].tolist() == outputs[1].tolist()


def test_a_dummy_changes_nothing_but_touches_every_part(vision: Any) -> None:
    layout = Layout.of(vision.config)
    sample = _samples(layout, False)[1]
    alone, _ = Scorer(vision)(pack([sample]))
    batch = pack([sample, dummy_sample(layout)])
    both, _ = Scorer(vision)(batch)
    torch.testing.assert_close(both[:-1], alone, atol=2e-5, rtol=1e-5)
    assert batch.num_weighted == sample.num_response
    (both * batch.weight).sum().backward()
    assert vision.model.visual.patch_embed.proj.weight.grad is not None
    vision.zero_grad()


def test_groups_hold_each_row_once() -> None:
    lengths = (5, 5, 17, 0, 1, 30, 29, 4)
    found = [group.queries for group in groups(Segments(lengths), 0.25, torch.device("cpu"))]
    rows = torch.cat([side.rows for side in found])
    assert sorted(rows.tolist()) == list(range(sum(lengths)))
    assert all(len(side.rows) >= 0.75 * side.num * side.length for side in found)


# ---- which rows share a pack ------------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=60)


@given(LENGTHS)
def test_bins_hold_all_and_keep_to_their_size(lengths: list[int]) -> None:
    bins = first_fit_decreasing(lengths, 100)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in one) <= 100 for one in bins)
    assert len(bins) <= 2 * sum(lengths) // 100 + 1


@given(LENGTHS, st.integers(1, 4), st.integers(1, 200))
def test_ranks_get_as_many_micro_batches_and_all_rows(
    lengths: list[int], ranks: int, budget: int
) -> None:
    costs = [float(length**2) for length in lengths]
    parts = micro_batches(lengths, costs, budget, ranks)
    fewest = len(first_fit_decreasing(lengths, max(budget, *lengths)))
    assert {len(part) for part in parts} == {-(-fewest // ranks)}
    assert sorted(i for part in parts for one in part for i in one) == list(range(len(lengths)))
    sizes = [sum(lengths[i] for i in one) for part in parts for one in part]
    assert max(sizes) <= max(budget, *lengths)


def test_ranks_and_each_of_their_micro_batches_cost_alike() -> None:
    """Rows with a long tail of lengths on 8 ranks; filled one after another, the last micro-batches would be nearly empty."""
    rng = random.Random(3)
    lengths = [min(4_000, round(rng.lognormvariate(6, 1))) for _ in range(512)]
    costs = [length * (1 + length / 16_384) for length in lengths]
    parts = micro_batches(lengths, costs, 8_192, 8)
    of_ranks = [[sum(costs[i] for i in one) for one in part] for part in parts]
    assert len(of_ranks[0]) > 1
    for met in zip(*of_ranks, strict=True):
        assert max(met) < 1.02 * min(met)


def test_no_part_holds_more_than_its_capacity() -> None:
    assert split_by_cost([9.0, 1.0, 1.0, 8.0, 7.0, 6.0], [1] * 6, 2, 3) == [[0, 5, 1], [3, 4, 2]]
    assert split_by_cost([9.0, 5.0, 1.0], [3, 2, 1], 2, 3) == [[0], [1, 2]]
    assert split_by_cost([9.0, 5.0, 1.0], [3, 2, 2], 2, 3) is None
    assert split_by_cost([], [], 2, 3) == [[], []]


def _plan(num: int = 50) -> PackPlan:
    return PackPlan(
        [f"r{i}" for i in range(num)], [10 + i % 7 for i in range(num)], 64, seed=3, window=20
    )


def test_an_epoch_holds_each_row_once_in_an_order_of_its_own() -> None:
    epochs = [[i for one in _plan().epoch_packs(epoch) for i in one] for epoch in (0, 1)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] == [i for one in _plan().epoch_packs(0) for i in one]


def test_steps_and_epochs() -> None:
    assert [len(step) for step in steps_of(_plan().epoch_rows, 16, None, 1)] == [16, 16, 16, 2]
    assert [len(step) for step in steps_of(_plan().epoch_rows, 16, None, 0.5)] == [16, 9]
    assert [len(step) for step in steps_of(_plan().epoch_rows, 30, 4, None)] == [30] * 4
    halves = [i for step in steps_of(_plan().epoch_rows, 7, None, 1.5) for i in step]
    assert len(halves) == 75
    assert set(halves) == set(range(50))


def test_no_rows_give_no_steps() -> None:
    assert steps_of(_plan(0).epoch_packs, 4, 10, None) == []
