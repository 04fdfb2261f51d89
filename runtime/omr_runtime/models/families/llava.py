"""LLaVA and LLaVA 1.5: every picture brought to the size of the vision tower, a token for each patch of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omr_runtime.models.families.family import (
    DEEPER_TOWER,
    Bounds,
    Family,
    Inputs,
    Pictured,
    Reader,
    blank,
    check_size,
    sized,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MORE_OUTPUTS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""What a tower gives beside one vector a patch: CLIP its class token."""

PROCESSORS = {
    "CLIPImageProcessor": "transformers.models.clip.image_processing_pil_clip",
    "LlavaImageProcessor": "transformers.models.llava.image_processing_pil_llava",
    "SiglipImageProcessor": "transformers.models.siglip.image_processing_pil_siglip",
}


def check(config: Any) -> str | None:
    """Why a model is not supported: one with another vision tower."""
    tower = config.vision_config.model_type
    if tower in MORE_OUTPUTS:
        return None
    return f"LLaVA models with the vision tower {tower} are not supported, only with {', '.join(MORE_OUTPUTS)}"


def read(reader: Reader, images: Sequence[Image], bounds: Bounds) -> Pictured:
    """``pixel_values`` [images, 3, side, side]."""
    shown = sized(reader.processor, images)
    pixels = reader.processor(images=shown, return_tensors="pt")["pixel_values"]
    check_size(pixels, reader.config)
    texts = [reader.token(reader.config.image_token_id)] * len(images)
    counts = [num_tokens(reader.config)] * len(images)
    return Pictured({"pixel_values": pixels}, texts, counts, shown)


def num_tokens(config: Any) -> int:
    """Tokens of a picture: one a patch, and with ``full`` the tower's class token too."""
    vision = config.vision_config
    outputs = int(vision.image_size // vision.patch_size) ** 2 + MORE_OUTPUTS[vision.model_type]
    return outputs - int(config.vision_feature_select_strategy == "default")


def dummy(config: Any) -> tuple[list[int], Inputs]:
    """One blank picture."""
    side = int(config.vision_config.image_size)
    return [config.image_token_id] * num_tokens(config), {"pixel_values": blank(1, 3, side, side)}


LLAVA = Family(
    name="LLaVA 1.5",
    model_types=("llava",),
    processors=PROCESSORS,
    read=read,
    dummy=dummy,
    mark=lambda config: int(config.image_token_id),
    check=check,
    served_names=DEEPER_TOWER,
    needs_parts=True,
)
