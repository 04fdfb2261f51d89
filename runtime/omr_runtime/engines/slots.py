"""Keys and values of sequences under way, one slot for each, and the attention that reads them.

Slots in use are always the first ones: a slot that falls free takes the last one's place, so the batch shrinks with
the work. No sequence is padded against another: each writes at its own position and sees only what it wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SLOT_ATTENTION = "omr_slots"


def slot_attention(
    module: Any,
    q_BHTD: Tensor,
    k_BKLD: Tensor,
    v_BKLD: Tensor,
    mask: Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token (T = 1) or of whole prompts; query heads of one key head ride as its queries at T = 1. A
    layer with a ``sliding_window`` sees so many tokens, itself among them."""
    batch, heads, length, width = q_BHTD.shape
    if sliding_window is not None and k_BKLD.shape[2] > sliding_window:
        mask = mask & _near(mask, length, sliding_window)
    if length > 1:
        out = scaled_dot_product_attention(
            q_BHTD,
            k_BKLD,
            v_BKLD,
            attn_mask=mask,
            scale=scaling,
            enable_gqa=heads != k_BKLD.shape[1],
        )
        return out.transpose(1, 2), None
    q_BKGD = q_BHTD.view(batch, k_BKLD.shape[1], -1, width)
    out = scaled_dot_product_attention(q_BKGD, k_BKLD, v_BKLD, attn_mask=mask, scale=scaling)
    return out.reshape(batch, 1, heads, width), None


def _near(mask: Tensor, length: int, window: int) -> Tensor:
    """The last ``window`` tokens of each: a new one stands after all that it sees, those of prompts one after another."""
    if length == 1:
        at = mask.sum(-1, keepdim=True) - 1
    else:
        at = torch.arange(length, device=mask.device)[:, None]
    return torch.arange(mask.shape[-1], device=mask.device) > at - window


@contextmanager
def slot_attending(model: Any) -> Iterator[None]:
    """The model's decoder attends by ``slot_attention`` inside, in evaluation mode; both are put back after, each module's mode
    for itself: an adapter's dropout rests while the model around it trains."""
    from transformers import AttentionInterface

    AttentionInterface.register(SLOT_ATTENTION, slot_attention)
    config = model.get_decoder().config
    before, modes = config._attn_implementation, [(m, m.training) for m in model.modules()]
    config._attn_implementation = SLOT_ATTENTION
    model.eval()
    try:
        yield
    finally:
        config._attn_implementation = before
        for module, trains in modes:
            module.training = trains


class PromptStates:
    """Records the keys and values of a prefill: the cache that a model is given there."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(self, k: Tensor, v: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.layers.append((k, v))
        return k, v

    def get_seq_length(self, *_: Any) -> int:
        return 0


class Slots:
    """The cache that a model is given while it decodes: ``[slot, position, head, width]`` for each layer."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.rows = torch.empty(0, dtype=torch.long)
        self.lengths = torch.zeros(capacity, dtype=torch.long)
        self.longest = 0

    def get_seq_length(self, *_: Any) -> int:
        return self.longest

    def room(self, length: int, like: PromptStates) -> None:
        """Make room for sequences of ``length``, in steps of a half so that growing is rare."""
        have = self.layers[0][0].shape[1] if self.layers else 0
        if have >= length:
            return
        size = max(length, have + have // 2)
        self.layers = [
            (self._grown(layer, 0, size, k), self._grown(layer, 1, size, v))
            for layer, (k, v) in enumerate(like.layers or self._as_prompts())
        ]

    def _as_prompts(self) -> list[tuple[Tensor, Tensor]]:
        return [(k.transpose(1, 2), v.transpose(1, 2)) for k, v in self.layers]

    def _grown(self, layer: int, which: int, size: int, like_BHLD: Tensor) -> Tensor:
        new = like_BHLD.new_zeros(self.capacity, size, like_BHLD.shape[1], like_BHLD.shape[3])
        if self.layers:
            old = self.layers[layer][which]
            new[:, : old.shape[1]] = old
        return new

    def admit(self, slots: Tensor, states: PromptStates, rows: Tensor, lengths: Tensor) -> None:
        """Copy the prompts ``rows`` of a prefill, of ``lengths`` tokens each, into ``slots``."""
        self.room(int(lengths.max()) + 1, states)
        width = states.layers[0][0].shape[2]
        for (keys, values), (k, v) in zip(self.layers, states.layers, strict=True):
            keys[slots, :width] = k[rows].transpose(1, 2)
            values[slots, :width] = v[rows].transpose(1, 2)
        self.lengths[slots] = lengths

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy whole slots: what closes the gaps that finished sequences leave."""
        longest = int(self.lengths[source].max()) if len(source) else 0
        for keys, values in self.layers:
            keys[target, :longest] = keys[source, :longest]
            values[target, :longest] = values[source, :longest]
        self.lengths[target] = self.lengths[source]

    def begin(self, num_active: int) -> Tensor:
        """Make ready for one more token in each of the first slots; the mask ``[B, 1, 1, L]`` of what each may see."""
        self.rows = torch.arange(num_active)
        self.longest = int(self.lengths[:num_active].max()) + 1
        self.room(self.longest, PromptStates())
        device = self.layers[0][0].device
        seen = torch.arange(self.longest)[None] <= self.lengths[:num_active, None]
        return seen[:, None, None].to(device)

    def update(
        self, k_BH1D: Tensor, v_BH1D: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.layers[layer]
        at, count = self.lengths[: len(self.rows)], len(self.rows)
        keys[self.rows, at] = k_BH1D[:, :, 0]
        values[self.rows, at] = v_BH1D[:, :, 0]
        seen = slice(self.longest)
        return keys[:count, seen].transpose(1, 2), values[:count, seen].transpose(1, 2)

    def end(self) -> None:
        """The token of this step stays."""
        self.lengths[: len(self.rows)] += 1
