"""Idefics 3 and SmolVLM: a picture cut into tiles with marks around each, and seen as a whole after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omr_runtime.models.families.family import (
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

AROUND = "<fake_token_around_image>"
WHOLE = "<global-img>"
"""Marks as the processors write them; ``config.json`` does not have them."""


def read(reader: Reader, images: Sequence[Image], bounds: Bounds) -> Pictured:
    """``pixel_values`` [tiles, 1, 3, side, side]: to the model each tile is the one image of a prompt of its own, so that
    tiles of several prompts stand one after another and none is filling."""
    made = reader.processor(images=[rgb(images)], return_row_col_info=True, return_tensors="pt")
    pixels = made["pixel_values"][0]
    check_size(pixels, reader.config)
    token = reader.token(reader.config.image_token_id)
    grids = list(zip(made["rows"][0], made["cols"][0], strict=True))
    texts = [tiles_text(rows, columns, token) for rows, columns in grids]
    counts = [num_tokens(reader.config)] * len(pixels)
    return Pictured({"pixel_values": pixels[:, None]}, texts, counts, rgb(images), ON_PIL)


def tiles_text(rows: int, columns: int, token: str) -> str:
    """What stands for one picture, with a token for each tile.

    >>> tiles_text(0, 0, "<image>")
    '<fake_token_around_image><global-img><image><fake_token_around_image>'
    """
    lines = [
        "".join(f"{AROUND}<row_{row + 1}_col_{column + 1}>{token}" for column in range(columns))
        for row in range(rows)
    ]
    before = "".join(f"{line}\n" for line in lines) + "\n" * bool(lines)
    return f"{before}{AROUND}{WHOLE}{token}{AROUND}"


def num_tokens(config: Any) -> int:
    """Tokens of a tile."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    return int(side**2 // config.scale_factor**2)


def dummy(config: Any) -> tuple[list[int], Inputs]:
    """One blank tile."""
    side = int(config.vision_config.image_size)
    pixels = blank(1, 1, 3, side, side)
    return [config.image_token_id] * num_tokens(config), {"pixel_values": pixels}


IDEFICS = Family(
    name="Idefics 3 and SmolVLM",
    model_types=("idefics3", "smolvlm"),
    processors={
        "Idefics3ImageProcessor": "transformers.models.idefics3.image_processing_pil_idefics3",
        "SmolVLMImageProcessor": "transformers.models.smolvlm.image_processing_pil_smolvlm",
    },
    read=read,
    dummy=dummy,
    mark=lambda config: int(config.image_token_id),
    needs_parts=True,
)
