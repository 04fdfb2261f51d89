"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a picture in its own size, and positions by its rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omr_runtime.models.families.family import Bounds, Family, Inputs, Pictured, Reader, rgb

if TYPE_CHECKING:
    from PIL.Image import Image


def read(reader: Reader, images: Sequence[Image], bounds: Bounds) -> Pictured:
    """``pixel_values`` [patches, patch_dim] and ``image_grid_thw`` [images, 3]; ``merge ** 2`` patches are a token."""
    processor = reader.processor
    size = {
        "shortest_edge": bounds.min_pixels or processor.size["shortest_edge"],
        "longest_edge": bounds.max_pixels or processor.size["longest_edge"],
    }
    shown = [_resized(processor, image, size) for image in rgb(images)]
    made = processor(images=shown, do_resize=False, return_tensors="pt")
    grids = made["image_grid_thw"]
    counts = (grids.prod(-1) // processor.merge_size**2).tolist()
    inputs = {"pixel_values": made["pixel_values"], "image_grid_thw": grids}
    texts = [reader.token(reader.config.image_token_id)] * len(images)
    return Pictured(inputs, texts, counts, shown, _told(processor.size, shown))


def _told(own: Mapping[str, int], shown: Sequence[Image]) -> dict[str, Any]:
    """Bounds that hold the pictures as they are, where the processor's ``own`` would not."""
    areas = [image.width * image.height for image in shown]
    bounds = {
        "shortest_edge": min(own["shortest_edge"], *areas),
        "longest_edge": max(own["longest_edge"], *areas),
    }
    return {} if all(own[name] == bounds[name] for name in bounds) else {"size": bounds}


def _resized(processor: Any, image: Image, size: Mapping[str, int]) -> Image:
    """As the processor would."""
    from PIL.Image import fromarray
    from transformers.image_utils import SizeDict

    factor = processor.patch_size * processor.merge_size
    pixels = np.asarray(image).transpose(2, 0, 1)
    made = processor.resize(pixels, SizeDict(**size), processor.resample, factor)
    return fromarray(made.transpose(1, 2, 0))


def positions(input_ids: Sequence[int], images: Inputs, config: Any) -> NDArray[np.int64]:
    """Temporal, height and width positions [3, L] (arXiv 2502.13923, section 2.1.3; Qwen3-VL keeps them for images).

    Text counts on in all three; an image's patches count rows and columns from where the text stopped, and the text
    after it goes on from the longer side.
    """
    merge, token = config.vision_config.spatial_merge_size, config.image_token_id
    ids = np.asarray(input_ids)
    out = np.empty((3, len(ids)), dtype=np.int64)
    at, position = 0, 0
    grids = iter(images["image_grid_thw"].tolist() if images else [])
    while at < len(ids):
        if ids[at] == token:
            t, h, w = next(grids)
            h, w = h // merge, w // merge
            out[:, at : at + t * h * w] = np.indices((t, h, w)).reshape(3, -1) + position
            at, position = at + t * h * w, position + max(h, w)
        else:
            rest = np.flatnonzero(ids[at:] == token)
            num = int(rest[0]) if len(rest) else len(ids) - at
            out[:, at : at + num] = np.arange(position, position + num)
            at, position = at + num, position + num
    return out


def patch_dim(config: Any) -> int:
    """Numbers of a patch: colours, two frames, rows and columns."""
    vision = config.vision_config
    return int(vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)


def dummy(config: Any) -> tuple[list[int], Inputs]:
    """One token's patches."""
    import torch

    side = config.vision_config.spatial_merge_size
    pixels = torch.zeros(side * side, patch_dim(config))
    grid = torch.tensor([[1, side, side]])
    return [config.image_token_id], {"pixel_values": pixels, "image_grid_thw": grid}


QWEN_VL = Family(
    name="Qwen-VL",
    model_types=("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"),
    processors={
        "Qwen2VLImageProcessor": "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
    },
    read=read,
    dummy=dummy,
    mark=lambda config: int(config.image_token_id),
    positions=positions,
    has_bounds=True,
    has_windows=True,
)
