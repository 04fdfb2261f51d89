"""Gemma 3: every picture brought to one size, and its tokens see each other, before and after."""

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


def check(config: Any) -> str | None:
    """Why a model is not supported: an encoder, whose text sees what comes after."""
    if config.text_config.use_bidirectional_attention:
        return "Gemma 3 models whose text sees what comes after it are not supported"
    return None


def read(reader: Reader, images: Sequence[Image], bounds: Bounds) -> Pictured:
    """``pixel_values`` [images, 3, side, side]; no crops beside the whole picture, as its processor does by default."""
    config = reader.config
    shown = sized(reader.processor, images, do_pan_and_scan=False)
    made = reader.processor(images=shown, do_pan_and_scan=False, return_tensors="pt")
    check_size(made["pixel_values"], config)
    ids = (config.boi_token_id, config.image_token_id, config.eoi_token_id)
    text = "".join(reader.token(id) for id in ids)
    counts = [int(config.mm_tokens_per_image)] * len(images)
    texts = [f"\n\n{text}\n\n"] * len(images)
    return Pictured({"pixel_values": made["pixel_values"]}, texts, counts, shown)


def dummy(config: Any) -> tuple[list[int], Inputs]:
    """One blank picture."""
    side = int(config.vision_config.image_size)
    ids = [config.image_token_id] * int(config.mm_tokens_per_image)
    return ids, {"pixel_values": blank(1, 3, side, side)}


GEMMA = Family(
    name="Gemma 3",
    model_types=("gemma3",),
    processors={"Gemma3ImageProcessor": "transformers.models.gemma3.image_processing_pil_gemma3"},
    read=read,
    dummy=dummy,
    mark=lambda config: int(config.boi_token_id),
    check=check,
    looks_ahead=True,
    served_names=DEEPER_TOWER,
)
