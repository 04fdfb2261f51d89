"""Every family of vision-language models: packed as it is alone, tokens as its own processor counts them, saved as it was.

The oracle is transformers alone: its models without anything of ours, its processors where torchvision is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from test_rl import metric, rl_spec, rl_work, table
from training_parts import PROMPT, drawn_rows, fresh_folder, sft_spec, sft_work
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from omr_runtime import chat
from omr_runtime.engines.asking import placeholders
from omr_runtime.engines.decode import Ask, Draw, samples
from omr_runtime.errors import RunError
from omr_runtime.models import Loaded, load, load_tokenizer
from omr_runtime.models.families import FAMILIES, family_of, supported
from omr_runtime.stages.rl import run as train_rl
from omr_runtime.stages.sft import run as run_sft
from omr_runtime.train.batching import Sample, dummy_sample, make_sample, pack
from omr_runtime.train.logprobs import Scorer
from omrlang.check.suits import NATIVE
from omrlang.estimate.shapes import shape_of
from omrlang.estimate.visual import image_tokens
from omrlang.types import Fresh, Lora, Model

FRESH = ["qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "smolvlm", "gemma3"]
TILED = ("smolvlm", "idefics3")
SIZES = [(), ((56, 56),), ((84, 56), (60, 130)), (), ((30, 200),)]
"""Height and width of the images of each row: with none, one and two of them."""


@dataclass
class Known:
    """A model of the family, and rows as it is shown them."""

    family: str
    folder: Path
    loaded: Loaded
    prompts: list[chat.Encoded]

    @property
    def model(self) -> Any:
        return self.loaded.model


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_a_check_knows_who_takes_bounds() -> None:
    found = {name for name in FRESH if (family := family_of(name)) and family.has_bounds}
    assert found == set(NATIVE)


def rows_and_images() -> list[tuple[dict[str, Any], list[Image.Image]]]:
    found = []
    for i, sizes in enumerate(SIZES):
        images = [picture(size, 10 * i + k) for k, size in enumerate(sizes)]
        row = {"id": f"row{i}", "question": "How many red circles?" + " square" * i}
        found.append((row | {"images": ["digest"] * len(images)}, images))
    return found


def loud(model: Any) -> None:
    """Weights so large that a token seen by mistake would show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15, generator=generator)


def as_qwen2_vl(folder: Path) -> None:
    """Qwen2.5-VL's language model with the tower of Qwen2-VL."""
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    tower = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "mlp_ratio": 3, "num_heads": 2}
    text = config["text_config"] | {"model_type": "qwen2_vl_text"}
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    made = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config=tower,
        tie_word_embeddings=True,
        **{name: config[name] for name in names},
    )
    transformers.Qwen2VLForConditionalGeneration(made).save_pretrained(folder)


def as_qwen3_vl_moe(folder: Path) -> None:
    """Qwen3-VL with four experts in each layer, of which a token goes through two."""
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    text = config["text_config"] | experts | {"model_type": "qwen3_vl_moe_text"}
    tower = config["vision_config"] | {"model_type": "qwen3_vl_moe_vision"}
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    made = transformers.Qwen3VLMoeConfig(
        text_config=text,
        vision_config=tower,
        tie_word_embeddings=True,
        **{name: config[name] for name in names},
    )
    transformers.Qwen3VLMoeForConditionalGeneration(made).save_pretrained(folder)


def as_idefics3(folder: Path) -> None:
    """SmolVLM's weights as an Idefics 3: the same layers under another type, put together by other code."""
    for name in ("config.json", "preprocessor_config.json"):
        text = (folder / name).read_text()
        text = text.replace("smolvlm", "idefics3").replace("SmolVLM", "Idefics3")
        (folder / name).write_text(text)


OTHERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "qwen2_vl": ("qwen2_5_vl", as_qwen2_vl),
    "qwen3_vl_moe": ("qwen3_vl", as_qwen3_vl_moe),
    "idefics3": ("smolvlm", as_idefics3),
}
"""Model types that are made of a fresh one of another."""


@pytest.fixture(scope="module", params=[*FRESH, *OTHERS])
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Known:
    base, change = OTHERS.get(request.param, (request.param, lambda folder: None))
    folder = fresh_folder(tmp_path_factory.mktemp(request.param), base)
    torch.manual_seed(0)
    change(folder)
    loaded = load(folder)
    loud(loaded.model)
    prompts = [chat.encode_prompt(loaded, row, PROMPT, seen) for row, seen in rows_and_images()]
    return Known(request.param, folder, loaded, prompts)


def drawn_tokens(num: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(40, 100, (num,), generator=generator).tolist()


def rows_of(known: Known) -> list[Sample]:
    layout = known.loaded.layout
    return [
        make_sample(f"row{i}", made.input_ids, drawn_tokens(3 + 7 * i, i), layout, made.images)
        for i, made in enumerate(known.prompts)
    ]


def groups_of(known: Known) -> list[Sample]:
    """Several responses to each prompt, of which one stays alone; rows of other prompts between them."""
    layout, made = known.loaded.layout, []
    for i, prompt in enumerate(known.prompts):
        for n in range(1 if i == 3 else 3):
            ids = drawn_tokens(1 + 9 * n, 10 * i + n)
            made.append(
                make_sample(f"{i}/{n}", prompt.input_ids, ids, layout, prompt.images, group=str(i))
            )
    return made[::2] + made[1::2]


def told(known: Known, ids: torch.Tensor, images: Any) -> dict[str, Any]:
    """What the family's own processor would hand to the library's model."""
    kinds = torch.eq(ids, known.loaded.image_token_id or -1).int()
    if known.family.startswith("qwen"):
        return {**(images or {}), **({"mm_token_type_ids": kinds} if images else {})}
    if known.family in TILED and images:
        return {"pixel_values": images["pixel_values"].transpose(0, 1)}
    if known.family == "gemma3":
        return {**(images or {}), "token_type_ids": kinds}
    return dict(images or {})


def alone(known: Known, model: Any, sample: Sample) -> torch.Tensor:
    """Log-probabilities of a response by transformers alone."""
    ids = torch.tensor([sample.input_ids])
    logits = model(input_ids=ids, use_cache=False, **told(known, ids, sample.images)).logits[0]
    targets = ids[0, sample.num_prompt :]
    logp = torch.log_softmax(logits.float(), -1)[sample.num_prompt - 1 : -1]
    return logp.gather(1, targets[:, None])[:, 0]


def gradients(model: Any, logp_N: torch.Tensor) -> torch.Tensor:
    loss = (logp_N * torch.linspace(0.5, 1.5, len(logp_N))).sum()
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None])


def check_equal(known: Known, rows: Sequence[Sample]) -> None:
    model = known.model
    model.set_attn_implementation("sdpa")
    expected = torch.cat([alone(known, model, row) for row in rows])
    expected_grad = gradients(model, expected)
    found, _ = Scorer(model)(pack(rows))
    found_grad = gradients(model, found)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found_grad.shape == expected_grad.shape
    assert (found_grad - expected_grad).norm() / expected_grad.norm() < 1e-4


def test_packed_equals_unpacked_with_none_one_and_two_images(known: Known) -> None:
    check_equal(known, rows_of(known))


def test_a_prompt_with_images_that_a_group_shares_is_as_good_as_one_for_each(known: Known) -> None:
    check_equal(known, groups_of(known))


def test_images_matter_and_the_tower_learns(known: Known) -> None:
    """Else packed could equal unpacked because nothing sees them."""
    row = rows_of(known)[1]
    assert row.images is not None
    other = replace(row, images=row.images | {"pixel_values": -row.images["pixel_values"]})
    scorer = Scorer(known.model)
    one, _ = scorer(pack([row]))
    two, _ = scorer(pack([other]))
    assert (one - two).abs().max() > 1e-2
    one.sum().backward()
    tower = [p for name, p in known.model.named_parameters() if "vis" in name and p.ndim > 1]
    assert sum(float(p.grad.abs().sum()) > 0 for p in tower if p.grad is not None) > len(tower) / 2
    known.model.zero_grad()


def test_what_is_computed_again_in_the_backward_pass_is_the_same(known: Known) -> None:
    """``recompute``: of the vision tower too, where the library has it."""
    rows, scorer = rows_of(known), Scorer(known.model)
    expected, _ = scorer(pack(rows))
    expected_grad = gradients(known.model, expected)
    known.model.train()
    known.model.gradient_checkpointing_enable({"use_reentrant": False})
    found, _ = scorer(pack(rows))
    found_grad = gradients(known.model, found)
    known.model.gradient_checkpointing_disable()
    known.model.eval()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found_grad - expected_grad).norm() / expected_grad.norm() < 1e-5


def test_in_bf16_it_is_the_same_model(known: Known) -> None:
    """What is trained by default: packed, with gradients, and by the engine."""
    rough = load(known.folder, "bf16")
    fine: Any = load(known.folder).model
    rows = rows_of(known)
    expected, _ = Scorer(fine)(pack(rows))
    found, _ = Scorer(rough.model)(pack(rows))  # type: ignore[arg-type]
    assert (found - expected).abs().max() < 0.3
    assert gradients(rough.model, found).isfinite().all()
    asks = [Ask(made.input_ids, (0,), made.images) for made in known.prompts]
    drawn = samples(rough.model, asks, Draw(0.0, 5, frozenset(rough.stop_ids)), 3)
    assert len(drawn) == len(asks)


def test_what_an_image_sees_of_itself_and_how_far_a_layer_sees_decide(known: Known) -> None:
    """Of Gemma 3 alone: else its masks could be as causal as those of others."""
    row = rows_of(known)[2]
    if known.family != "gemma3":
        assert row.pictures is None
        return
    scorer = Scorer(known.model)
    found, _ = scorer(pack([row]))
    causal, _ = scorer(pack([replace(row, pictures=None)]))
    assert (found - causal).abs().max() > 1e-2
    layer = known.model.get_decoder().layers[0].self_attn
    window, layer.sliding_window = layer.sliding_window, None
    far, _ = scorer(pack([row]))
    layer.sliding_window = window
    assert row.num_tokens > window
    assert (found - far).abs().max() > 1e-2


def test_a_dummy_changes_nothing_but_touches_every_part(known: Known) -> None:
    row = rows_of(known)[0]
    scorer = Scorer(known.model)
    expected, _ = scorer(pack([row]))
    batch = pack([row, dummy_sample(known.loaded.layout)])
    found, _ = scorer(batch)
    torch.testing.assert_close(found[:-1], expected, atol=1e-5, rtol=1e-5)
    assert batch.num_weighted == row.num_response
    (found * batch.weight).sum().backward()
    unused = [name for name, p in known.model.named_parameters() if p.grad is None]
    expected_grad = gradients_of_all(known)
    assert set(unused) == expected_grad
    known.model.zero_grad()


def gradients_of_all(known: Known) -> set[str]:
    """Parameters that transformers' own forward pass over a row with an image leaves without a gradient."""
    model, row = known.model, rows_of(known)[1]
    model.zero_grad()
    model.set_attn_implementation("sdpa")
    alone(known, model, row).sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is None}


# ---- tokens and positions ------------------------------------------------------------------------------------------


def own_processor(known: Known) -> Any:
    """The family's processor of text and images; None where it needs torchvision, for videos. SmolVLM's needs it too; it
    writes of images what Idefics 3's does."""
    if known.family.startswith("qwen") or known.family == "llava_onevision":
        return None
    if known.family in TILED:
        one = load_tokenizer(known.folder)
        template = one.tokenizer.chat_template
        return Idefics3Processor(one.image_processor, one.tokenizer, 4, chat_template=template)
    return transformers.AutoProcessor.from_pretrained(known.folder)


def test_the_prompt_is_what_the_familys_own_processor_makes(known: Known) -> None:
    """All of it: the text as the chat template writes it, every token, every pixel."""
    own, loaded = own_processor(known), known.loaded
    for (row, images), made in zip(rows_and_images(), known.prompts, strict=True):
        if own is None:
            expected = placeholders_of(known, images)
            assert made.input_ids.count(loaded.image_token_id or -1) == expected
            continue
        turns = [turn | {"content": parts(turn["content"])} for turn in chat.messages(row, PROMPT)]
        text = own.apply_chat_template(turns, add_generation_prompt=True)
        assert text == made.unexpanded_text
        theirs = own(text=[text], images=[images] if images else None, return_tensors="pt")
        assert theirs["input_ids"].tolist() == [made.input_ids]
        if made.images is not None:
            shown = theirs["pixel_values"]
            torch.testing.assert_close(
                shown.view_as(made.images["pixel_values"]), made.images["pixel_values"]
            )


def placeholders_of(known: Known, images: list[Image.Image]) -> int:
    """As the family's processor counts them, without the part of it that is for videos."""
    if known.family == "llava_onevision":
        return of_onevision(known, images) if images else 0
    count = known.loaded.image_processor.get_number_of_image_patches  # type: ignore[union-attr]
    return sum(count(image.height, image.width, {}) // 4 for image in images)


def of_onevision(known: Known, images: list[Image.Image]) -> int:
    real = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    real.image_processor, real.image_token = known.loaded.image_processor, "<image>"
    real.num_image_tokens, real.vision_aspect_ratio = 16, "anyres_max_9"
    real.vision_feature_select_strategy = "full"
    made = real.image_processor([images], return_tensors="np")
    return sum(real.replace_image_token(made, i).count("<image>") for i in range(len(images)))


def parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def test_positions_are_those_of_transformers(known: Known) -> None:
    for row in rows_of(known):
        if not known.family.startswith("qwen"):
            assert row.positions is None
            continue
        ids = torch.tensor([row.input_ids])
        grids = row.images["image_grid_thw"] if row.images else None
        kinds = torch.eq(ids, known.loaded.image_token_id or -1).int()
        expected, _ = known.model.model.get_rope_index(ids, kinds, grids)
        assert row.positions is not None
        assert (torch.from_numpy(row.positions) == expected[:, 0]).all()


# ---- the engine --------------------------------------------------------------------------------------------------


def greedy(known: Known, model: Any, made: chat.Encoded) -> list[int]:
    """The library's own greedy search."""
    ids = torch.tensor([made.input_ids])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        **told(known, ids, made.images),
    )
    return list(out[0, len(made.input_ids) :].tolist())


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_engine_gives_the_librarys_greedy_answers(known: Known, batch: int) -> None:
    known.model.set_attn_implementation("sdpa")
    asks = [Ask(made.input_ids, (0,), made.images) for made in known.prompts]
    found = samples(known.model, asks, Draw(0.0, 12, frozenset(known.loaded.stop_ids)), batch)
    expected = [greedy(known, known.model, made) for made in known.prompts]
    assert [one.token_ids for one in found] == expected


def test_the_engines_logprobs_are_those_of_the_trainer(known: Known) -> None:
    asks = [Ask(made.input_ids, (i,), made.images) for i, made in enumerate(known.prompts)]
    stops = frozenset(known.loaded.stop_ids)
    drawing = Draw(0.7, 12, stops, never=placeholders(known.loaded))
    found = samples(known.model, asks, drawing, 64)
    rows = [
        make_sample(str(i), made.input_ids, one.token_ids, known.loaded.layout, made.images)
        for i, (made, one) in enumerate(zip(known.prompts, found, strict=True))
    ]
    logp_N, _ = Scorer(known.model)(pack(rows), 0.7)
    drawn_N = torch.tensor([x for one in found for x in one.logprobs])
    torch.testing.assert_close(drawn_N, logp_N.detach(), atol=1e-4, rtol=1e-4)


# ---- folders -----------------------------------------------------------------------------------------------------


def test_two_steps_of_sft_and_the_model_in_plain_transformers(known: Known, tmp_path: Path) -> None:
    rows = drawn_rows(tmp_path, 8)
    rows[2]["images"] = []
    rows[5]["images"] = rows[5]["images"] + rows[6]["images"]
    work = sft_work(tmp_path, known.folder, rows, sft_spec(steps=2, pack=256))
    run_sft(work)
    folder = tmp_path / "models" / work.stage.fingerprint
    ours = load(folder)
    plain: Any = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    plain.eval()
    before: Any = load(known.folder).model
    changed = zip(before.parameters(), plain.parameters(), strict=True)
    assert any((a != b).any() for a, b in changed)
    made = [chat.encode_prompt(ours, row, PROMPT, seen) for row, seen in rows_and_images()]
    packed = [
        make_sample(str(i), one.input_ids, drawn_tokens(9, i), ours.layout, one.images)
        for i, one in enumerate(made)
    ]
    found, _ = Scorer(ours.model)(pack(packed))  # type: ignore[arg-type]
    expected = torch.cat([alone(known, plain, row) for row in packed])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    asks = [Ask(one.input_ids, (0,), one.images) for one in made]
    answers = samples(ours.model, asks, Draw(0.0, 12, frozenset(ours.stop_ids)), 64)
    assert [one.token_ids for one in answers] == [greedy(known, plain, one) for one in made]


def test_a_step_of_rl_draws_what_the_trainer_scores(known: Known, tmp_path: Path) -> None:
    """Rollouts of pictures by the engine with the trainer's weights: both give each token the same probability."""
    rows = drawn_rows(tmp_path, 8)
    work = rl_work(tmp_path, known.folder, rows, rl_spec(steps=2, max_prompt=128))
    train_rl(work)
    assert max(abs(x) for x in metric(work, "rollout_kl")) < 1e-5
    assert len(table(work, "rollout")) == 2 * 4 * 4
    assert all(x > 0 for x in metric(work, "grad_norm"))


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": ("vision", "projector")},
        {"adapter": Lora(rank=2, alpha=4, targets=("q_proj", "v_proj"))},
    ],
)
def test_what_is_kept_stays_and_what_is_trained_moves(
    known: Known, changes: dict[str, Any], tmp_path: Path
) -> None:
    """By the names that the family gives its parts: a tower has matrices of the same names as the language model."""
    work = sft_work(tmp_path, known.folder, drawn_rows(tmp_path, 6), sft_spec(steps=1, **changes))
    run_sft(work)
    before: Any = load(known.folder).model
    after: Any = load(tmp_path / "models" / work.stage.fingerprint).model
    moved = {
        name.partition("model.")[2].split(".")[0]
        for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if (a != b).any()
    }
    decoder = "text_model" if known.family in TILED else "language_model"
    assert moved == {decoder}


def test_a_stage_may_set_pixels_only_where_images_keep_their_size(known: Known) -> None:
    (row, images), family = rows_and_images()[1], known.loaded.layout.family
    assert family is not None
    if family.has_bounds:
        small = chat.encode_prompt(known.loaded, row, PROMPT, images, max_pixels=1024)
        assert len(small.input_ids) < len(known.prompts[1].input_ids)
        return
    with pytest.raises(RunError, match=f"{family.name} brings every image to a size of its own"):
        chat.encode_prompt(known.loaded, row, PROMPT, images, max_pixels=1024)


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mllama", "vision_config": {}}')
    with pytest.raises(RunError, match="type mllama are not supported; supported are Qwen-VL"):
        load_tokenizer(tmp_path)
    for family in FAMILIES:
        assert family.name in supported()


def test_other_image_processors_are_refused_by_name(known: Known, tmp_path: Path) -> None:
    family = known.loaded.layout.family
    assert family is not None
    (tmp_path / "config.json").write_text((known.folder / "config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Other"}')
    with pytest.raises(RunError, match=f"{family.name} models with the image processor Other"):
        load_tokenizer(tmp_path)


# ---- the plan ----------------------------------------------------------------------------------------------------


def source(family: str, **changes: Any) -> Fresh:
    numbers = {"layers": 2, "hidden": 64, "heads": 4, "vision_layers": 3, "vision_hidden": 96}
    return Fresh.model_validate({"family": family, **numbers, **changes})


@pytest.mark.parametrize("family", FRESH)
@pytest.mark.parametrize("changes", [{}, {"vision_layers": 1, "layers": 1, "hidden": 32}])
def test_the_plan_knows_the_size_of_a_model_made_from_its_config(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    made = source(family, **changes)
    shape = shape_of(Model(name="m", source=made))
    assert shape is not None
    model: Any = load(fresh_folder(tmp_path, **made.model_dump(exclude={"kind"}))).model
    assert shape.num_params == sum(p.numel() for p in model.parameters())
    text = sum(p.numel() for p in model.get_decoder().parameters())
    assert shape.num_params - shape.vision_params == text


@pytest.mark.parametrize("size", [(56, 56), (84, 56), (60, 130), (200, 30), (500, 400)])
def test_the_plan_counts_the_tokens_of_an_image(known: Known, size: tuple[int, int]) -> None:
    base, _ = OTHERS.get(known.family, (known.family, None))
    shape = shape_of(Model(name="m", source=source(base)))
    assert shape is not None
    row = {"id": "r", "question": "What?", "images": ["d"]}
    with_image = chat.encode_prompt(known.loaded, row, PROMPT, [picture(size, 3)])
    without = chat.encode_prompt(known.loaded, row | {"images": []}, PROMPT)
    found = len(with_image.input_ids) - len(without.input_ids)
    assert found - MARKS_AROUND.get(base, 0) == image_tokens(shape, *size)


MARKS_AROUND = {"qwen2_5_vl": 2, "qwen3_vl": 2, "gemma3": 3}
"""Tokens that the chat template or the processor puts around an image, which the plan counts with the text. Gemma 3's are a
mark and a blank line on either side, of which the first is one token with the end of the line before."""
