"""A ``fresh(…)`` source with vision -> a small model of its family with random weights, and what prepares its images.

Pictures are small too: the towers take patches of 14 or 16 pixels, so that a drawn puzzle of 56 x 56 is a few tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from omr_runtime.models import vocabulary
from omrlang.types import Fresh

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Builder: TypeAlias = "Callable[[Fresh, PreTrainedTokenizerFast], tuple[Any, Any]]"

PATCH = 14
MERGE = 2
MAX_POSITIONS = 4096

TILE = 56
"""Pixels of a side of what a tower that takes pictures of one size is shown."""

QWEN3_PATCH = 16
QWEN3_GRID = 16
"""Patches of a side of the learned positions, which are stretched to each picture's."""


@dataclass(frozen=True, slots=True)
class Processor:
    """An image processor and the settings of the processor around it, whose class cannot be made here: it wants packages
    for videos."""

    images: Any
    settings: Mapping[str, Any]

    def save_pretrained(self, folder: Path) -> None:
        self.images.save_pretrained(folder)
        (folder / "processor_config.json").write_text(json.dumps(dict(self.settings), indent=2))


def text_settings(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The decoder's numbers, as most configs name them."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": source.hidden,
        "intermediate_size": 3 * source.hidden,
        "num_hidden_layers": source.layers,
        "num_attention_heads": source.heads,
        "num_key_value_heads": source.heads,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": initial_spread(source.hidden),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def initial_spread(hidden: int) -> float:
    """Standard deviation of the first weights. The families' own 0.02 fits widths of thousands; a model of width 128
    that starts with it needs more than twice the steps to see anything in a picture (measured on the drawn puzzles)."""
    return 1 / math.sqrt(hidden)


def _tower(source: Fresh) -> tuple[int, int]:
    """Layers and width of the vision tower."""
    return source.vision_layers or 2, source.vision_hidden or source.hidden


# ---- Qwen-VL -------------------------------------------------------------------------------------------------------

_QWEN_TOKENS = {
    "image_token_id": vocabulary.IMAGE,
    "video_token_id": vocabulary.VIDEO,
    "vision_start_token_id": vocabulary.VISION_START,
    "vision_end_token_id": vocabulary.VISION_END,
}


def qwen_image_processor(patch: int = PATCH) -> Any:
    """Qwen-VL's image processor on PIL alone: 28 x 28 pixels become one token, 32 x 32 in Qwen3-VL."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(patch_size=patch, merge_size=MERGE, temporal_patch_size=2)


def _qwen_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {name: tokenizer.convert_tokens_to_ids(text) for name, text in _QWEN_TOKENS.items()}


def _qwen2_5_vl(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config=text_settings(source, tokenizer) | {"rope_parameters": _mrope(source)},
        vision_config=_qwen2_5_tower(source),
        tie_word_embeddings=True,
        **_qwen_tokens(tokenizer),
    )
    return Qwen2_5_VLForConditionalGeneration(config), qwen_image_processor()


def _mrope(source: Fresh) -> dict[str, Any]:
    """The sections of a head's half for time, height and width: as in Qwen2.5-VL, 2 : 3 : 3."""
    half = source.hidden // source.heads // 2
    time = half // 4
    height = (half - time) // 2
    sections = [time, height, half - time - height]
    return {"rope_type": "default", "mrope_section": sections, "rope_theta": 10_000.0}


def _qwen_tower(source: Fresh) -> dict[str, Any]:
    layers, hidden = _tower(source)
    return {
        "depth": layers,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "initializer_range": initial_spread(hidden),
        "num_heads": source.tower_heads,
        "out_hidden_size": source.hidden,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
    }


def _qwen2_5_tower(source: Fresh) -> dict[str, Any]:
    layers, _ = _tower(source)
    return _qwen_tower(source) | {
        "window_size": 112,
        "fullatt_block_indexes": list(range(layers)),
    }


def _qwen3_vl(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    head = {
        "head_dim": source.hidden // source.heads,
        "rope_parameters": _interleaved_mrope(source),
    }
    config = Qwen3VLConfig(
        text_config=text_settings(source, tokenizer) | head,
        vision_config=_qwen3_tower(source),
        tie_word_embeddings=True,
        **_qwen_tokens(tokenizer),
    )
    return Qwen3VLForConditionalGeneration(config), qwen_image_processor(QWEN3_PATCH)


def _interleaved_mrope(source: Fresh) -> dict[str, Any]:
    """As in Qwen3-VL every third of a head's frequencies is height's and every third width's, the slowest are time's."""
    half = source.hidden // source.heads // 2
    side = 5 * half // 16
    sections = [half - 2 * side, side, side]
    return {
        "rope_type": "default",
        "mrope_section": sections,
        "mrope_interleaved": True,
        "rope_theta": 10_000.0,
    }


def _qwen3_tower(source: Fresh) -> dict[str, Any]:
    """Each layer but the last hands what it sees to a text layer too (DeepStack), three at most."""
    layers, _ = _tower(source)
    return _qwen_tower(source) | {
        "patch_size": QWEN3_PATCH,
        "num_position_embeddings": QWEN3_GRID**2,
        "deepstack_visual_indexes": list(range(min(layers - 1, source.layers, 3))),
    }


# ---- LLaVA ---------------------------------------------------------------------------------------------------------


def _llava(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    """As LLaVA 1.5: Llama, and CLIP's last layer but one, without its class token."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.processing_llava import LlavaProcessor

    config = LlavaConfig(
        text_config=LlamaConfig(**text_settings(source, tokenizer), tie_word_embeddings=True),
        vision_config=CLIPVisionConfig(**_square_tower(source)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(TILE // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    square = {"height": TILE, "width": TILE}
    images = CLIPImageProcessorPil(size={"shortest_edge": TILE}, crop_size=square)
    whole = LlavaProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)
    return Llava(config), whole


def _square_tower(source: Fresh) -> dict[str, Any]:
    """CLIP's or SigLIP's numbers: pictures of one size."""
    layers, hidden = _tower(source)
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_attention_heads": source.tower_heads,
        "image_size": TILE,
        "patch_size": PATCH,
    }


def _llava_onevision(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    """Qwen2 with SigLIP; grids of up to 6 x 6 crops, nine crops' worth of tokens at most."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    grids = [[TILE * down, TILE * across] for down in range(1, 7) for across in range(1, 7)]
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**text_settings(source, tokenizer), tie_word_embeddings=True),
        vision_config=SiglipVisionConfig(**_square_tower(source), vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
        tie_word_embeddings=True,
    )
    images = LlavaOnevisionImageProcessorPil(
        size={"height": TILE, "width": TILE}, image_grid_pinpoints=grids
    )
    settings = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": (TILE // PATCH) ** 2,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "vision_aspect_ratio": config.vision_aspect_ratio,
    }
    return LlavaOnevisionForConditionalGeneration(config), Processor(images, settings)


# ---- SmolVLM -------------------------------------------------------------------------------------------------------


def _smolvlm(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    """Llama, with SigLIP's tower over tiles: the longer side of a picture is two of them, four patches are a token."""
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    _, hidden = _tower(source)
    config = SmolVLMConfig(
        text_config=LlamaConfig(**text_settings(source, tokenizer), tie_word_embeddings=True),
        vision_config=_square_tower(source) | {"initializer_range": initial_spread(hidden)},
        scale_factor=MERGE,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    images = SmolVLMImageProcessorPil(
        size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}
    )
    count = (TILE // PATCH // MERGE) ** 2
    settings = {"processor_class": "SmolVLMProcessor", "image_seq_len": count}
    return SmolVLMForConditionalGeneration(config), Processor(images, settings)


# ---- Gemma 3 -------------------------------------------------------------------------------------------------------

GEMMA_WINDOW = 32
"""Tokens that every other layer sees: fewer than a prompt has, so that it matters."""


def _gemma3(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    """Sliding and full layers by turns, and SigLIP's tower, four patches pooled to a token."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
    from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

    count, (_, hidden) = (TILE // PATCH // MERGE) ** 2, _tower(source)
    names = {"boi_token_index": "boi_token", "eoi_token_index": "eoi_token", "image_token_index": "image_token"}  # fmt: skip
    marks = vocabulary.MARKS["gemma3"].named
    config = Gemma3Config(
        text_config=text_settings(source, tokenizer) | _gemma_text(source),
        vision_config=_square_tower(source) | {"vision_use_head": False},
        mm_tokens_per_image=count,
        initializer_range=initial_spread(source.hidden),
        tie_word_embeddings=True,
        **{key: tokenizer.convert_tokens_to_ids(marks[name]) for key, name in names.items()},
    )
    model = Gemma3ForConditionalGeneration(config)
    join = model.model.multi_modal_projector.mm_input_projection_weight
    torch.nn.init.normal_(join, std=initial_spread(hidden))  # zeros, else: blind at first
    images = Gemma3ImageProcessorPil(size={"height": TILE, "width": TILE})
    return model, Gemma3Processor(images, tokenizer, image_seq_length=count)


def _gemma_text(source: Fresh) -> dict[str, Any]:
    head = source.hidden // source.heads
    kinds = ("sliding_attention", "full_attention")
    return {
        "head_dim": head,
        "query_pre_attn_scalar": head,
        "sliding_window": GEMMA_WINDOW,
        "layer_types": [kinds[layer % 2] for layer in range(source.layers)],
    }


BUILDERS: Mapping[str, Builder] = {
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava": _llava,
    "llava_onevision": _llava_onevision,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
}
"""What makes a model and what prepares its images, an image processor or one of text and images, by family."""
