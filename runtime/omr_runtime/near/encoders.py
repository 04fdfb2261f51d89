"""A model's folder to what it makes of a text or of images: one vector, for ``near(…, text = MODEL, image = MODEL)``.

Static word vectors are read by model2vec; any other text model by transformers, the mean of its last layer over the
tokens; vision models by transformers, their pooled output. One value at a time, so that no batch decides a rounding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omr_runtime.errors import RunError
from omr_runtime.models.load import quiet, read_config
from omr_runtime.near.vectors import Encoder

if TYPE_CHECKING:
    from PIL.Image import Image


def text_encoder(folder: Path) -> Encoder:
    """RunError when the folder holds no model that encodes texts."""
    return _static(folder) if _is_static(folder) else _transformer(folder)


def _is_static(folder: Path) -> bool:
    """As model2vec marks what it saves: in its config, or as a module of sentence-transformers."""
    if read_config(folder).get("model_type") == "model2vec":
        return True
    modules = folder / "modules.json"
    return modules.exists() and "StaticEmbedding" in modules.read_text()


def _static(folder: Path) -> Encoder:
    from model2vec import StaticModel

    try:
        model = StaticModel.from_pretrained(folder, force_download=False)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: no static word vectors that can be read: {error}") from error

    def encode(text: str) -> Any:
        return model.encode([text], use_multiprocessing=False)[0]

    return encode


def _transformer(folder: Path) -> Encoder:
    import torch
    from transformers import AutoTokenizer

    model = _model(folder)
    tokenizer = _loaded(folder, "tokenizer", AutoTokenizer)

    def encode(text: str) -> Any:
        asked = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            if hasattr(model, "get_text_features"):
                return _numbers(model.get_text_features(**asked))
            return _numbers(model(**asked).last_hidden_state.mean(dim=1))

    return encode


def image_encoder(folder: Path, open_image: Callable[[str], Image]) -> Encoder:
    """The mean of a row's images, each of length 1. RunError when the folder holds no model that encodes images."""
    import torch

    model, processor = _model(folder), _image_processor(folder)

    def one(digest: str) -> Any:
        asked = processor(images=open_image(digest), return_tensors="pt")
        with torch.inference_mode():
            if hasattr(model, "get_image_features"):
                vector = _numbers(model.get_image_features(**asked))
            else:
                vector = _numbers(_pooled(model(**asked)))
        return vector / np.linalg.norm(vector)

    def encode(images: Sequence[str]) -> Any:
        return np.mean([one(digest) for digest in images], axis=0)

    return encode


def _image_processor(folder: Path) -> Any:
    """The one that the folder names, on PIL alone, so that torchvision is needed nowhere."""
    import transformers

    path = folder / "preprocessor_config.json"
    try:
        named = str(json.loads(path.read_text()).get("image_processor_type", ""))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read; it says how images become numbers") from error
    kind = getattr(transformers, f"{named.removesuffix('Fast').removesuffix('Pil')}Pil", None)
    if kind is None:
        raise RunError(f"{path}: images cannot be prepared by {named or 'what it does not name'}")
    return _loaded(folder, "image processor", kind)


def _pooled(output: Any) -> Any:
    """What a model says of the whole image; the mean over places where it does not pool."""
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state.flatten(2).mean(dim=2) if pooled is None else pooled


def _numbers(found: Any) -> Any:
    """[width] of a batch of one."""
    tensor = found if hasattr(found, "flatten") else found.pooler_output
    return tensor.flatten().float().cpu().numpy()


def _model(folder: Path) -> Any:
    from transformers import AutoModel

    with quiet():
        return _loaded(folder, "model", AutoModel, use_safetensors=True).eval()


def _loaded(folder: Path, what: str, kind: Any, **settings: Any) -> Any:
    """RunError in place of the many errors of a folder that lacks something."""
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"{folder}: no {what} that can be read: {first}") from error
