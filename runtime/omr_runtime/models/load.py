"""A model folder -> a model, its tokenizer and its image processor, in memory. Never runs code from the folder."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from omr_runtime.errors import RunError
from omr_runtime.models.families import Layout, family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision: TypeAlias = Literal["bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder holds. ``model`` is None where only the tokenizer was asked for; ``image_processor`` is None for a
    model of text alone. ``stop_ids`` end a response; ``layout`` says how pictures become tokens."""

    folder: Path
    model: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any | None
    is_vision: bool
    stop_ids: tuple[int, ...]
    layout: Layout = field(default_factory=Layout)

    @property
    def image_token_id(self) -> int | None:
        """The token that stands for a part of a picture."""
        return self.layout.image_token_id


def load(folder: str | Path, precision: str = "fp32", device: str = "cpu") -> Loaded:
    """Weights and all, in evaluation mode. ``precision`` is ``bf16`` or ``fp32``. RunError names what is missing."""
    import torch
    import transformers
    from safetensors import SafetensorError

    config = read_config(Path(folder))
    parts = load_tokenizer(folder)
    _check_caps(Path(folder), config)
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
        parts.stop_ids, parts.layout,
    )  # fmt: skip


def _check_caps(folder: Path, config: dict[str, Any]) -> None:
    """Neither the engine nor the trainer bends scores or logits by a tanh, as Gemma 2 does; without a word they would
    compute another model."""
    text = config.get("text_config") or config
    if text.get("final_logit_softcapping") or text.get("attn_logit_softcapping"):
        raise RunError(
            f"{folder}: models that cap their logits, as Gemma 2 does, are not supported"
        )


def load_tokenizer(folder: str | Path) -> Loaded:
    """Everything but the weights: enough to render and encode prompts and to decode responses."""
    folder = Path(folder)
    config = read_config(folder)
    layout, processor = Layout(), None
    if "vision_config" in config:
        family = family_of(str(config.get("model_type")))
        layout = Layout(family, _config(folder))
        processor = _image_processor(folder, layout)
    tokenizer = _tokenizer(folder)
    stops = _stop_ids(folder, tokenizer)
    return Loaded(folder, None, tokenizer, processor, layout.family is not None, stops, layout)


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
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _processors_template(folder)
    return tokenizer


def _processors_template(folder: Path) -> str | None:
    """The chat template that older folders keep beside the tokenizer, for the processor of text and images."""
    path = folder / "chat_template.json"
    return json.loads(path.read_text()).get("chat_template") if path.exists() else None


def _is_complete(folder: Path) -> bool:
    """Whether ``tokenizer.json`` alone says everything. By the model's type, AutoTokenizer would take some such
    tokenizers for that type's own (a ``qwen2`` folder for Qwen's) and drop half of what the file says."""
    path = folder / "tokenizer_config.json"
    if not path.exists() or not (folder / "tokenizer.json").exists():
        return False
    named = json.loads(path.read_text()).get("tokenizer_class")
    return named in ("TokenizersBackend", "PreTrainedTokenizerFast")


def _config(folder: Path) -> Any:
    """The config with what its type has by default."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'config.json'}: cannot be read: {_first_line(error)}") from error


def _image_processor(folder: Path, layout: Layout) -> Any:
    """The image processor on PIL alone, so that torchvision is needed nowhere."""
    family = layout.family
    assert family is not None, "asked for models with vision alone"
    if reason := family.check(layout.config):
        raise RunError(f"{folder}: {reason}")
    name = _processor_name(folder).removesuffix("Pil").removesuffix("Fast")
    if name not in family.processors:
        known = ", ".join(family.processors)
        raise RunError(
            f"{folder}: {family.name} models with the image processor {name} are not supported, only with {known}"
        )
    kind = getattr(importlib.import_module(family.processors[name]), f"{name}Pil")
    return kind.from_pretrained(folder, local_files_only=True)


def _processor_name(folder: Path) -> str:
    """The class that a folder's settings name: in a file of the image processor's own, or within the whole processor's."""
    own, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    settings = json.loads(own.read_text()) if own.exists() else {}
    if not settings and whole.exists():
        settings = json.loads(whole.read_text()).get("image_processor") or {}
    if not settings:
        raise RunError(
            f"{folder}: preprocessor_config.json is missing; it says how images become patches"
        )
    return str(settings.get("image_processor_type", "of no name"))


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
