"""A ``fresh(…)`` source -> a model folder: a real architecture from its config, random weights by seed, its own tokenizer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omr_runtime.models import vocabulary
from omr_runtime.models.load import quiet
from omrlang.types import Fresh

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PATCH = 14
MERGE = 2
MAX_POSITIONS = 4096


def make_fresh(source: Fresh, folder: Path) -> None:
    """Write weights, config, tokenizer and (with vision) the image processor's settings into ``folder``."""
    import torch

    tokenizer = vocabulary.make_tokenizer(source.vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(source.seed)
        model = _model(source, tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if source.family == "qwen2_5_vl":
        image_processor().save_pretrained(folder)


def image_processor() -> Any:
    """Qwen-VL's image processor on PIL alone: 28 x 28 pixels become one token."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2)


def _model(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> Any:
    match source.family:
        case "qwen2":
            return _qwen2(source, tokenizer)
        case "qwen2_5_vl":
            return _qwen2_5_vl(source, tokenizer)


def _text_settings(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
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


def _qwen2(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**_text_settings(source, tokenizer), tie_word_embeddings=True)
    return Qwen2ForCausalLM(config)


def _qwen2_5_vl(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = _text_settings(source, tokenizer) | {"rope_parameters": _mrope(source)}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=_vision_settings(source),
        tie_word_embeddings=True,
        **{name: tokenizer.convert_tokens_to_ids(text) for name, text in _VISION_TOKENS.items()},
    )
    return Qwen2_5_VLForConditionalGeneration(config)


_VISION_TOKENS = {
    "image_token_id": vocabulary.IMAGE,
    "video_token_id": vocabulary.VIDEO,
    "vision_start_token_id": vocabulary.VISION_START,
    "vision_end_token_id": vocabulary.VISION_END,
}


def initial_spread(hidden: int) -> float:
    """Standard deviation of the first weights. The families' own 0.02 fits widths of thousands; a model of width 128
    that starts with it needs more than twice the steps to see anything in a picture (measured on the drawn puzzles)."""
    return 1 / math.sqrt(hidden)


def _mrope(source: Fresh) -> dict[str, Any]:
    """The sections of a head's half for time, height and width: as in Qwen2.5-VL, 2 : 3 : 3."""
    half = source.hidden // source.heads // 2
    time = half // 4
    height = (half - time) // 2
    sections = [time, height, half - time - height]
    return {"rope_type": "default", "mrope_section": sections, "rope_theta": 10_000.0}


def _vision_settings(source: Fresh) -> dict[str, Any]:
    layers, hidden = source.vision_layers or 2, source.vision_hidden or source.hidden
    return {
        "depth": layers,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "initializer_range": initial_spread(hidden),
        "num_heads": max(1, hidden // 32),
        "out_hidden_size": source.hidden,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": list(range(layers)),
    }
