"""The forecast of an image's tokens against the real processors, each built from a configuration in code."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from omrlang.estimate.visual import image_tokens
from omrlang.types import Shape, construct

SIZES = st.tuples(st.integers(28, 1600), st.integers(28, 1600))
WORDS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "\n", "\n\n"]
WORDS += [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]


def shape(**numbers: Any) -> Shape:
    return construct(Shape, **numbers)


def picture(size: tuple[int, int]) -> Image.Image:
    height, width = size
    return Image.new("RGB", (width, height))


@cache
def tokenizer(**more: str) -> PreTrainedTokenizerFast:
    """Each mark of an image is one token, as in the real vocabularies; "\\n\\n" is one too."""
    words = [*WORDS, *more.values()]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[UNK]", *words])}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("\n\n", "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", **more)
    made.add_special_tokens({"additional_special_tokens": [w for w in words if w.strip()]})
    return made


QWEN = {
    "qwen2.5": shape(patch=14, merge=2, min_pixels=3136, max_pixels=12_845_056),
    "qwen3": shape(patch=16, merge=2, min_pixels=65_536, max_pixels=16_777_216),
}


@pytest.mark.parametrize("family", QWEN)
@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([(None, None), (None, 100_352), (200_704, None), (50_000, 60_000)]))
@example((28, 1600), (None, None))
@example((3000, 4500), (None, None))
def test_qwen(family: str, size: tuple[int, int], bounds: tuple[int | None, int | None]) -> None:
    known, (lo, hi) = QWEN[family], bounds
    real = Qwen2VLImageProcessorPil(
        patch_size=known.patch,
        merge_size=known.merge,
        size={
            "shortest_edge": lo or known.min_pixels,
            "longest_edge": hi or known.max_pixels,
        },
    )
    grid = real(picture(size), return_tensors="np")["image_grid_thw"][0]
    assert image_tokens(known, *size, lo, hi) == int(grid.prod()) // known.merge**2


@settings(max_examples=40, deadline=None)
@given(SIZES)
@example((300, 1500))
@example((1500, 300))
@example((384, 384))
@example((2304, 2304))
def test_llava_onevision(size: tuple[int, int]) -> None:
    known = shape(tiling="anyres", tile=384, patch=14, merge=1, max_tiles=9)
    real = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    real.image_processor = LlavaOnevisionImageProcessorPil()
    real.num_image_tokens, real.vision_aspect_ratio = 27 * 27, "anyres_max_9"
    real.vision_feature_select_strategy = "full"
    found = real._get_num_multimodal_tokens([size])["num_image_tokens"][0]
    assert image_tokens(known, *size) == found


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_llava_1_5(size: tuple[int, int]) -> None:
    """336 x 336 in patches of 14: 576 tokens."""
    known = shape(tiling="fixed", tile=336, patch=14, merge=1)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    real = LlavaProcessor(processor, tokenizer(), 14, "default", num_additional_image_tokens=1)
    ids = real(images=picture(size), text="<image>")["input_ids"][0]
    assert image_tokens(known, *size) == ids.count(real.image_token_id) == 576


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_gemma_3(size: tuple[int, int]) -> None:
    """896 x 896 in patches of 14, pooled 4 x 4: 256 tokens."""
    known = shape(tiling="fixed", tile=896, patch=14, merge=4)
    words = tokenizer(
        boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<soft>"
    )
    words.boi_token_id = words.convert_tokens_to_ids("<start_of_image>")
    words.image_token_id = words.convert_tokens_to_ids("<soft>")
    processor = Gemma3ImageProcessorPil(size={"height": 896, "width": 896})
    real = Gemma3Processor(processor, words)
    ids = real(images=picture(size), text="<start_of_image>")["input_ids"][0]
    assert image_tokens(known, *size) == ids.count(words.image_token_id) == 256


@pytest.mark.parametrize(
    ("tile", "patch", "merge", "longest"),
    [(364, 14, 2, 1456), (512, 16, 4, 2048), (384, 14, 3, 1536)],
    ids=["idefics3", "smolvlm-256m", "smolvlm-2.2b"],
)
@settings(max_examples=12, deadline=None)
@given(SIZES)
@example((28, 1600))
@example((1600, 28))
@example((700, 700))
def test_idefics_3_and_smolvlm(
    tile: int, patch: int, merge: int, longest: int, size: tuple[int, int]
) -> None:
    known = shape(tiling="split", tile=tile, patch=patch, merge=merge, max_side=longest)
    processor = Idefics3ImageProcessorPil(
        size={"longest_edge": longest}, max_image_size={"longest_edge": tile}
    )
    real = Idefics3Processor(processor, tokenizer(), image_seq_len=(tile // patch // merge) ** 2)
    found = real._get_num_multimodal_tokens([size])["num_image_tokens"][0]
    assert image_tokens(known, *size) == found
    written = real.replace_image_token(processor([[picture(size)]], return_row_col_info=True), 0)
    marks = written.replace("\n\n", "|").replace("\n", "|").replace("<", " <").replace("|", " |")
    assert image_tokens(known, *size) == len(marks.split())
