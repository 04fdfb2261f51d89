"""An image's size becomes the number of its tokens, exactly as each family's processor makes them.

The rules are those of the processors in transformers 5.17; ``tests/test_visual_tokens.py`` holds them against these. An
image token is one that stands for a part of the picture; ``split`` also counts the marks that its processor puts between
tiles, which are as many as rows and columns.
"""

from __future__ import annotations

from math import ceil, floor, sqrt

from omrlang.types import Shape

LARGEST_SIDE = 4096
"""Idefics 3 shrinks what is longer before it cuts."""

CROPS = 6
"""LLaVA-OneVision cuts an image into at most so many crops a side, by the grids that its processor lists."""

OVERFULL = 1.1
"""From this ratio of sides on LLaVA-OneVision pools the crops down."""


def image_tokens(
    shape: Shape, height: int, width: int, lo: int | None = None, hi: int | None = None
) -> int:
    """Tokens of one image. ``lo`` and ``hi`` are a stage's pixel bounds, in the place of the model's own.

    >>> qwen = Shape(num_params=1, layers=1, hidden=1, heads=1, kv_heads=1, head_dim=1, vocab=1, intermediate=1)
    >>> image_tokens(qwen, 2048, 2048, hi=4_194_304)
    5329
    """
    match shape.tiling:
        case "native":
            return _native(shape, height, width, lo, hi)
        case "fixed":
            return _side(shape) ** 2
        case "anyres":
            return _anyres(shape, height, width)
        case "split":
            return _split(shape, height, width)


def _side(shape: Shape) -> int:
    """Tokens along a side of a tile."""
    return shape.tile // shape.patch // shape.merge


def _native(shape: Shape, height: int, width: int, lo: int | None, hi: int | None) -> int:
    """Qwen2-VL and later: both sides to multiples of ``patch x merge``, the area between the bounds."""
    unit = shape.patch * shape.merge
    lo, hi = lo or shape.min_pixels or 1, hi or shape.max_pixels or 2**62
    rows, columns = round(height / unit), round(width / unit)
    if rows * columns * unit**2 > hi:
        shrink = sqrt(height * width / hi)
        rows, columns = (max(1, floor(side / shrink / unit)) for side in (height, width))
    elif rows * columns * unit**2 < lo:
        grow = sqrt(lo / (height * width))
        rows, columns = (ceil(side * grow / unit) for side in (height, width))
    return rows * columns


def _anyres(shape: Shape, height: int, width: int) -> int:
    """LLaVA-OneVision: the whole image in one tile, and cut into crops without their padding, each row ended by a token."""
    side = _side(shape)
    down, across = _crops(shape, height, width)
    rows, columns = side * down, side * across
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    over = sqrt(rows * columns / (shape.max_tiles * side**2))
    if over > OVERFULL:
        rows, columns = int(rows // over), int(columns // over)
    return side**2 + rows * columns + rows


def _crops(shape: Shape, height: int, width: int) -> tuple[int, int]:
    """The grid that keeps most pixels of the image and, among these, wastes least; the first of equals."""

    def fit(grid: tuple[int, int]) -> tuple[int, int]:
        tall, wide = grid[0] * shape.tile, grid[1] * shape.tile
        scale = min(wide / width, tall / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - tall * wide

    grids = [(down, across) for down in range(1, CROPS + 1) for across in range(1, CROPS + 1)]
    return max(grids, key=fit)


def _split(shape: Shape, height: int, width: int) -> int:
    """Idefics 3, SmolVLM: the longer side to ``max_side``, tiles with marks around each, a whole view after them."""
    tokens = _side(shape) ** 2
    height, width = _within(height, width, shape.max_side, even=True)
    if max(height, width) > LARGEST_SIDE:
        height, width = _within(height, width, LARGEST_SIDE, even=False)
    rows, columns = ceil(height / shape.tile), ceil(width / shape.tile)
    whole = tokens + 3
    return whole if rows == columns == 1 else whole + rows * (columns * (tokens + 2) + 1)


def _within(height: int, width: int, longest: int, even: bool) -> tuple[int, int]:
    """The longer side as given, the other in proportion (``even``: up to an even number)."""
    ratio = width / height
    if width >= height:
        short = int(longest / ratio)
        return max(1, short + short % 2 * even), longest
    short = int(longest * ratio)
    return longest, max(1, short + short % 2 * even)
