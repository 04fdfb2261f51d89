"""LLaVA-OneVision: a picture alone as a whole and in crops of the best grid; several pictures as a whole each."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

from omr_runtime.models.families.family import (
    DEEPER_TOWER,
    ON_PIL,
    Bounds,
    Family,
    Inputs,
    Pictured,
    Reader,
    blank,
    check_size,
    rgb,
)

if TYPE_CHECKING:
    from PIL.Image import Image

TOWER = "siglip_vision_model"
CROPS = "anyres_max_"
"""How a config names the cutting into crops; the number after it is how many crops' worth of tokens a picture has at most."""

OVERFULL = 1.1
"""From this ratio of sides on the crops' tokens are pooled."""


def check(config: Any) -> str | None:
    """Why a model is not supported: one whose tower has a class token, or that cuts pictures otherwise."""
    tower, cut = config.vision_config.model_type, config.vision_aspect_ratio
    if tower != TOWER or config.vision_feature_select_strategy != "full":
        return f"LLaVA-OneVision models are supported with the whole output of {TOWER} alone, not of {tower}"
    if not cut.startswith(CROPS):
        return f"LLaVA-OneVision models that cut images by {cut} are not supported"
    return None


def read(reader: Reader, images: Sequence[Image], bounds: Bounds) -> Pictured:
    """``pixel_values`` [tiles, 3, side, side]; ``image_sizes`` [images, 2] (height, width) and ``batch_num_images`` [1]
    say which tiles are whose: crops are made of a picture that is alone in its prompt."""
    config = reader.config
    grids = config.image_grid_pinpoints
    made = reader.processor(
        images=[rgb(images)], image_grid_pinpoints=grids, do_pad=False, return_tensors="pt"
    )
    pixels = made["pixel_values"].flatten(0, 1)
    check_size(pixels, config)
    alone = len(images) == 1
    counts = [
        num_tokens(config, image.height, image.width) if alone else _side(config) ** 2 + 1
        for image in images
    ]
    inputs = {
        "pixel_values": pixels,
        "image_sizes": made["image_sizes"],
        "batch_num_images": made["batch_num_images"],
    }
    texts = [reader.token(config.image_token_id)] * len(images)
    return Pictured(inputs, texts, counts, rgb(images), ON_PIL)


def _side(config: Any) -> int:
    """Tokens along a side of a tile."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def num_tokens(config: Any, height: int, width: int) -> int:
    """Tokens of a picture alone: the whole, then the rows of its crops without what fills their grid up, each with a token
    at its end (arXiv 2408.03326, section 3.2)."""
    from transformers.image_processing_utils import select_best_resolution

    side, tile = _side(config), config.vision_config.image_size
    tall, wide = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, columns = side * (tall // tile), side * (wide // tile)
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    most = int(config.vision_aspect_ratio.removeprefix(CROPS))
    over = sqrt(rows * columns / (most * side**2))
    if over > OVERFULL:
        rows, columns = int(rows // over), int(columns // over)
    return int(side**2 + rows * columns + rows)


def dummy(config: Any) -> tuple[list[int], Inputs]:
    """One blank picture of a tile's size: the whole, and one crop."""
    import torch

    side = int(config.vision_config.image_size)
    inputs = {
        "pixel_values": blank(2, 3, side, side),
        "image_sizes": torch.tensor([[side, side]]),
        "batch_num_images": torch.tensor([1]),
    }
    return [config.image_token_id] * num_tokens(config, side, side), inputs


LLAVA_ONEVISION = Family(
    name="LLaVA-OneVision",
    model_types=("llava_onevision",),
    processors={
        "LlavaOnevisionImageProcessor": (
            "transformers.models.llava_onevision.image_processing_pil_llava_onevision"
        )
    },
    read=read,
    dummy=dummy,
    mark=lambda config: int(config.image_token_id),
    check=check,
    served_names=DEEPER_TOWER,
    vllm_sees_one=True,
    needs_parts=True,
)
