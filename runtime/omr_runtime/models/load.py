"""A model folder -> a model, its tokenizer and its image processor, in memory. Never runs code from the folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from omr_runtime.errors import RunError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision: TypeAlias = Literal["bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder holds. ``model`` is None where only the tokenizer was asked for; ``image_processor`` is None for a
    model of text alone. ``stop_ids`` end a response; ``merge`` is the side of the square of patches that is one token."""

    folder: Path
    model: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any | None
    is_vision: bool
    stop_ids: tuple[int, ...]
    image_token_id: int | None = None
    merge: int = 1


def load(folder: str | Path, precision: str = "fp32", device: str = "cpu") -> Loaded:
    """Weights and all, in evaluation mode. ``precision`` is ``bf16`` or ``fp32``. RunError names what is missing."""
    import torch
    import transformers
    from safetensors import SafetensorError

    config = read_config(Path(folder))
    parts = load_tokenizer(folder)
    kind = (
        transformers.AutoModelForImageTextToText
        if parts.is_vision
        else transformers.AutoModelForCausalLM
    )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        with quiet():
            model = kind.from_pretrained(
                folder,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                attn_implementation="sdpa",
            )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        name = config.get("model_type", "no model_type")
        raise RunError(
            f"{folder}: the model ({name}) cannot be loaded: {_first_line(error)}"
        ) from error
    model.to(device)
    model.eval()
    return Loaded(
        Path(folder), model, parts.tokenizer, parts.image_processor, parts.is_vision,
        parts.stop_ids, parts.image_token_id, parts.merge,
    )  # fmt: skip


def load_tokenizer(folder: str | Path) -> Loaded:
    """Everything but the weights: enough to render and encode prompts and to decode responses."""
    folder = Path(folder)
    config = read_config(folder)
    tokenizer = _tokenizer(folder)
    is_vision = "vision_config" in config
    processor = _image_processor(folder, config) if is_vision else None
    return Loaded(
        folder,
        None,
        tokenizer,
        processor,
        is_vision,
        _stop_ids(folder, tokenizer),
        config.get("image_token_id"),
        int(processor.merge_size) if processor is not None else 1,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``. RunError if there is none."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"{folder}: no model here (config.json is missing)") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {_first_line(error)}") from error
    assert isinstance(found, dict)
    return found


def saved_precision(folder: Path) -> Precision:
    """What a folder's weights are stored in, by its config."""
    config = read_config(folder)
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return "fp32" if stored == "float32" else "bf16"


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind = PreTrainedTokenizerFast if _is_complete(folder) else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RunError(f"{folder}: the tokenizer cannot be loaded: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise RunError(f"{folder}: the tokenizer has no end-of-text token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_complete(folder: Path) -> bool:
    """Whether ``tokenizer.json`` alone says everything. By the model's type, AutoTokenizer would take some such
    tokenizers for that type's own (a ``qwen2`` folder for Qwen's) and drop half of what the file says."""
    path = folder / "tokenizer_config.json"
    if not path.exists() or not (folder / "tokenizer.json").exists():
        return False
    named = json.loads(path.read_text()).get("tokenizer_class")
    return named in ("TokenizersBackend", "PreTrainedTokenizerFast")


def _image_processor(folder: Path, config: dict[str, Any]) -> Any:
    """The image processor on PIL alone, so that torchvision is needed nowhere."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    path = folder / "preprocessor_config.json"
    if not path.exists():
        raise RunError(
            f"{folder}: preprocessor_config.json is missing; it says how images become patches"
        )
    settings = json.loads(path.read_text())
    kind = str(settings.get("image_processor_type", ""))
    if not kind.startswith("Qwen2VLImageProcessor"):
        family = config.get("model_type")
        raise RunError(
            f"{folder}: models of the family {family} ({kind}) are not supported; only Qwen-VL ones"
        )
    return Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)


def _stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's end token and those that ``generation_config.json`` adds."""
    ids = [tokenizer.eos_token_id]
    path = folder / "generation_config.json"
    if path.exists():
        more = json.loads(path.read_text()).get("eos_token_id") or []
        ids += more if isinstance(more, list) else [more]
    return tuple(dict.fromkeys(int(i) for i in ids))


@contextmanager
def quiet() -> Iterator[None]:
    """Loading and saving print bars of their own; a stage's progress is the driver's."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
