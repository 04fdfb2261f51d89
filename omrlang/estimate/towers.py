"""A ``fresh(…)`` source becomes what its family has beside the matrices of a decoder: tower, small weights, image tokens.

The same models as ``omr_runtime.models.fresh_vision`` builds; ``tests/test_families.py`` holds the counts against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omrlang.types import Fresh

MLP_RATIO = 3
"""Of models made from a config: the MLP's width over the hidden size, in text and vision."""


@dataclass(frozen=True, slots=True)
class Tower:
    """``params`` of the tower and of what joins it to the text model; ``small`` are a text layer's biases and norms,
    ``more_words`` the tokens that a vocabulary has beside Qwen's, ``cut`` how a ``Shape`` says that images are cut."""

    small: Callable[[Fresh], int]
    params: Callable[[Fresh], int]
    more_words: int = 0
    cut: Mapping[str, Any] = field(default_factory=dict)


def tower_of(source: Fresh) -> Tower:
    """What the source's family has."""
    return _TOWERS[source.family]


def _width(source: Fresh) -> int:
    return source.vision_hidden or source.hidden


def _layers(source: Fresh) -> int:
    return source.vision_layers or 2


def _qwen2_layer(source: Fresh) -> int:
    """Biases of queries, keys and values, two norms."""
    return 5 * source.hidden


def _qwen3_layer(source: Fresh) -> int:
    """Two norms, and one of each head's queries and keys."""
    return 2 * source.hidden + 2 * (source.hidden // source.heads)


def _no_tower(source: Fresh) -> int:
    return 0


def _linear(inputs: int, outputs: int) -> int:
    """A matrix with its bias."""
    return inputs * outputs + outputs


def _qwen2_5_tower(source: Fresh) -> int:
    """Patches of 14 x 14 x 2, gated blocks, and the merger of 2 x 2 patches."""
    width, merged = _width(source), 4 * _width(source)
    block = 4 * width * width + 4 * width + 3 * width * MLP_RATIO * width + 7 * width + 2 * width
    merger = width + _linear(merged, merged) + _linear(merged, source.hidden)
    return 3 * 2 * 14 * 14 * width + _layers(source) * block + merger


def _plain_block(width: int) -> int:
    """Attention and an MLP of two matrices, all with biases, and two norms with biases."""
    wide = MLP_RATIO * width
    return 4 * _linear(width, width) + _linear(width, wide) + _linear(wide, width) + 4 * width


def _qwen3_tower(source: Fresh) -> int:
    """Patches of 16 x 16 x 2, learned positions, blocks, and mergers: one after the last layer, up to three before it."""
    width, merged = _width(source), 4 * _width(source)
    join = _linear(merged, merged) + _linear(merged, source.hidden)
    early = min(_layers(source) - 1, source.layers, 3)
    mergers = 2 * width + join + early * (2 * merged + join)
    patches = _linear(3 * 2 * 16 * 16, width) + 16 * 16 * width
    return patches + _layers(source) * _plain_block(width) + mergers


def _llama_layer(source: Fresh) -> int:
    """Two norms."""
    return 2 * source.hidden


def _clip_tower(source: Fresh) -> int:
    """Pictures of 56 x 56 in patches of 14 x 14, a class token, blocks, and a projector of two matrices."""
    width = _width(source)
    first = 3 * 14 * 14 * width + width + 17 * width + 2 * width
    blocks = _layers(source) * _plain_block(width)
    return first + blocks + 2 * width + _linear(width, source.hidden) + _linear(source.hidden, source.hidden)  # fmt: skip


def _onevision_tower(source: Fresh) -> int:
    """Tiles of 56 x 56 in patches of 14 x 14, blocks, a norm, a projector of two matrices, and what ends a row."""
    width = _width(source)
    first = _linear(3 * 14 * 14, width) + 16 * width
    join = _linear(width, source.hidden) + _linear(source.hidden, source.hidden) + source.hidden
    return first + _layers(source) * _plain_block(width) + 2 * width + join


def _smolvlm_tower(source: Fresh) -> int:
    """Tiles of 56 x 56 in patches of 14 x 14, blocks, a norm, and one matrix over four patches."""
    width = _width(source)
    first = _linear(3 * 14 * 14, width) + 16 * width
    return first + _layers(source) * _plain_block(width) + 2 * width + 4 * width * source.hidden


def _gemma_layer(source: Fresh) -> int:
    """Four norms, and one of each head's queries and keys."""
    return 4 * source.hidden + 2 * (source.hidden // source.heads)


def _gemma_tower(source: Fresh) -> int:
    """Pictures of 56 x 56 in patches of 14 x 14, blocks, a norm, another after pooling, and one matrix."""
    width = _width(source)
    first = _linear(3 * 14 * 14, width) + 16 * width
    return first + _layers(source) * _plain_block(width) + 3 * width + width * source.hidden


_TOWERS: Mapping[str, Tower] = {
    "qwen2": Tower(_qwen2_layer, _no_tower),
    "qwen2_5_vl": Tower(_qwen2_layer, _qwen2_5_tower),
    "qwen3_vl": Tower(_qwen3_layer, _qwen3_tower, cut={"patch": 16}),
    "llava": Tower(_llama_layer, _clip_tower, -3, {"tiling": "fixed", "tile": 56, "merge": 1}),
    "llava_onevision": Tower(
        _qwen2_layer, _onevision_tower, -2, {"tiling": "anyres", "tile": 56, "merge": 1}
    ),
    "smolvlm": Tower(
        _llama_layer, _smolvlm_tower, 36, {"tiling": "split", "tile": 56, "max_side": 112}
    ),
    "gemma3": Tower(_gemma_layer, _gemma_tower, 2, {"tiling": "fixed", "tile": 56}),
}
