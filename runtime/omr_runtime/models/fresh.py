"""A ``fresh(…)`` source -> a model folder: a real architecture from its config, random weights by seed, its own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omr_runtime.models import vocabulary
from omr_runtime.models.families import Layout
from omr_runtime.models.fresh_vision import BUILDERS, text_settings
from omr_runtime.models.load import quiet
from omrlang.types import Fresh

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def make_fresh(source: Fresh, folder: Path) -> None:
    """Write weights, config, tokenizer and (with vision) the image processor's settings into ``folder``."""
    import torch

    tokenizer = vocabulary.make_tokenizer(source.vocabulary, source.family)
    with torch.random.fork_rng():
        torch.manual_seed(source.seed)
        model, processor = _made(source, tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    layout = Layout.of(model.config)
    weights = {layout.served_name(name): tensor for name, tensor in model.state_dict().items()}
    with quiet():
        model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)


def _made(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    """The model, and what prepares its images; None for a model of text alone."""
    if source.family == "qwen2":
        return _qwen2(source, tokenizer), None
    return BUILDERS[source.family](source, tokenizer)


def _qwen2(source: Fresh, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**text_settings(source, tokenizer), tie_word_embeddings=True)
    return Qwen2ForCausalLM(config)
