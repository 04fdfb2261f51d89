"""Declared models -> folders with weights and a tokenizer, and folders -> models in memory."""

from omr_runtime.models.load import (
    Loaded,
    Precision,
    load,
    load_tokenizer,
    read_config,
    saved_precision,
)
from omr_runtime.models.materialise import materialise, model_digest, tokenizer_folder

__all__ = [
    "Loaded",
    "Precision",
    "load",
    "load_tokenizer",
    "materialise",
    "model_digest",
    "read_config",
    "saved_precision",
    "tokenizer_folder",
]
