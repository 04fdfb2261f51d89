"""A model's type -> what is particular to its family: how pictures become arrays and tokens, positions, who sees whom.

A family is data and a few functions in a module of its own here; the packed batch, the engine and ``chat`` ask it, and
test for none.
"""

from __future__ import annotations

from omr_runtime.errors import RunError
from omr_runtime.models.families.family import (
    Bounds,
    Family,
    Inputs,
    Layout,
    Pictured,
    Reader,
    joined,
    num_bytes,
)
from omr_runtime.models.families.gemma import GEMMA
from omr_runtime.models.families.idefics import IDEFICS
from omr_runtime.models.families.llava import LLAVA
from omr_runtime.models.families.llava_onevision import LLAVA_ONEVISION
from omr_runtime.models.families.qwen_vl import QWEN_VL

FAMILIES = (QWEN_VL, LLAVA, LLAVA_ONEVISION, IDEFICS, GEMMA)


def family_of(model_type: str) -> Family:
    """The family of a ``model_type``. RunError that names those which are supported."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    raise RunError(
        f"vision-language models of type {model_type} are not supported; supported are {supported()}"
    )


def supported() -> str:
    """All families with the model types of each."""
    return ", ".join(f"{one.name} ({', '.join(one.model_types)})" for one in FAMILIES)


__all__ = [
    "FAMILIES",
    "Bounds",
    "Family",
    "Inputs",
    "Layout",
    "Pictured",
    "Reader",
    "family_of",
    "joined",
    "num_bytes",
    "supported",
]
