"""Attention inside the segments of a packed sequence: never across, never over padding.

Alone knows how a segment mask is avoided: on a GPU torch's variable-length kernel takes the segment borders as they
are; elsewhere segments of like length are laid side by side as one batch, where a causal kernel needs no mask because
the filling stands after every real token. Legend: T packed tokens, H heads, D head size, S segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

varlen_attn: Callable[..., Any] | None
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

TEXT = "omr_segments"
VISION = "omr_flash_segments"
"""transformers hands a vision tower all its windows in one call if "flash" is part of the name."""

MAX_FILLING = 0.25
"""Segments share a batch while at most this part of it is filling."""


class Segments:
    """The lengths of the segments of one packed sequence, in order."""

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths
        self._cu: dict[torch.device, Tensor] = {}

    def cu_seqlens(self, device: torch.device) -> Tensor:
        """Where segments start and where the last ends, int32, [S + 1]."""
        if device not in self._cu:
            total = torch.tensor((0, *self.lengths), dtype=torch.int32).cumsum(0)
            self._cu[device] = total.to(device=device, dtype=torch.int32)
        return self._cu[device]


@dataclass(frozen=True, slots=True)
class Group:
    """Segments laid side by side: ``rows`` lists the packed rows of the batch ``num x length``, ``slots`` where in the
    flattened batch they stand. ``full`` is set if there is no filling."""

    num: int
    length: int
    rows: Tensor
    slots: Tensor
    full: bool


def _group(members: list[int], lengths: tuple[int, ...], starts: list[int]) -> Group:
    longest = max(lengths[i] for i in members)
    rows = torch.cat([torch.arange(starts[i], starts[i] + lengths[i]) for i in members])
    slots = torch.cat([torch.arange(lengths[i]) + k * longest for k, i in enumerate(members)])
    return Group(len(members), longest, rows, slots, len(rows) == len(members) * longest)


def _fits(members: list[int], lengths: tuple[int, ...], new: int, allowed: float) -> bool:
    longest = lengths[members[0]]
    real = sum(lengths[i] for i in members) + lengths[new]
    return real >= (1 - allowed) * longest * (len(members) + 1)


@lru_cache(maxsize=256)
def groups(lengths: tuple[int, ...], allowed: float, device: torch.device) -> tuple[Group, ...]:
    """Segments sorted by length and cut into batches with at most ``allowed`` filling."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    batches: list[list[int]] = []
    for i in sorted((i for i in range(len(lengths)) if lengths[i]), key=lambda i: -lengths[i]):
        if batches and _fits(batches[-1], lengths, i, allowed):
            batches[-1].append(i)
        else:
            batches.append([i])
    made = (_group(members, lengths, starts) for members in batches)
    return tuple(
        Group(g.num, g.length, g.rows.to(device), g.slots.to(device), g.full) for g in made
    )


class _Spread(torch.autograd.Function):
    """Packed rows to their slots in a batch, zeros elsewhere. Each row has one slot, so backward is a plain read."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group, ctx.num_rows = group, len(x)
        taken = x.index_select(0, group.rows)
        if group.full:
            return taken
        return x.new_zeros(group.num * group.length, x.shape[1]).index_copy_(0, group.slots, taken)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        taken = grads[0] if ctx.group.full else grads[0].index_select(0, ctx.group.slots)
        out = taken.new_zeros(ctx.num_rows, taken.shape[1])
        return out.index_copy_(0, ctx.group.rows, taken), None


class _Gather(torch.autograd.Function):
    """The slots of a batch that hold real rows, in the order of the group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group, ctx.num_slots = group, len(x)
        return x if group.full else x.index_select(0, group.slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if ctx.group.full:
            return grads[0], None
        out = grads[0].new_zeros(ctx.num_slots, grads[0].shape[1])
        return out.index_copy_(0, ctx.group.slots, grads[0]), None


class _Return(torch.autograd.Function):
    """Rows in the order of the groups back to packed order: a permutation, so backward is its inverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return torch.empty_like(x).index_copy_(0, order, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return grads[0].index_select(0, order), None


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    out: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return out


def _spread(x_THD: Tensor, group: Group) -> Tensor:
    _, heads, size = x_THD.shape
    flat = _apply(_Spread, x_THD.reshape(len(x_THD), heads * size), group)
    return flat.view(group.num, group.length, heads, size).transpose(1, 2)


def _grouped(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    lengths: tuple[int, ...],
    scale: float | None,
    causal: bool,
) -> Tensor:
    """Attention within segments by batches of like length; exact, since causal rows never see the filling."""
    heads, size = q_THD.shape[1:]
    parts = groups(lengths, MAX_FILLING if causal else 0.0, q_THD.device)
    outs = []
    for group in parts:
        q, k, v = (_spread(x, group) for x in (q_THD, k_THD, v_THD))
        gqa = k.shape[1] != q.shape[1]
        out = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=gqa)
        flat = out.transpose(1, 2).reshape(group.num * group.length, heads * size)
        outs.append(_apply(_Gather, flat, group))
    order = torch.cat([group.rows for group in parts]) if len(parts) > 1 else parts[0].rows
    whole = torch.cat(outs) if len(outs) > 1 else outs[0]
    return _apply(_Return, whole, order).view(-1, heads, size)


def _varlen(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    cu: Tensor,
    longest: int,
    scale: float | None,
    causal: bool,
) -> Tensor:
    assert varlen_attn is not None
    window = (-1, 0) if causal else (-1, -1)
    gqa = k_THD.shape[1] != q_THD.shape[1]
    out: Tensor = varlen_attn(
        q_THD,
        k_THD,
        v_THD,
        cu,
        cu,
        longest,
        longest,
        scale=scale,
        window_size=window,
        enable_gqa=gqa,
    )
    return out


def _has_kernel(x: Tensor) -> bool:
    return varlen_attn is not None and x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention per segment where ``segments`` are given, transformers' own SDPA where not (generation).

    query [1, H, T, D] to output [1, T, H, D]. ``attention_mask`` is not looked at for packed input.
    """
    if segments is None:
        whole: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return whole
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if _has_kernel(q):
        cu, longest = segments.cu_seqlens(q.device), max(segments.lengths)
        return _varlen(q, k, v, cu, longest, scaling, causal=True)[None], None
    return _grouped(q, k, v, segments.lengths, scaling, causal=True)[None], None


def vision_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Full attention inside each window of a vision tower, all windows in one call. Shapes as above."""
    assert cu_seq_lens_q is not None, "a vision tower gives the borders of its windows"
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if _has_kernel(q):
        longest = max_length_q or int(cu_seq_lens_q.diff().max())
        return _varlen(q, k, v, cu_seq_lens_q, int(longest), scaling, causal=False)[None], None
    lengths = tuple(cu_seq_lens_q.diff().tolist())
    return _grouped(q, k, v, lengths, scaling, causal=False)[None], None


AttentionInterface.register(TEXT, segment_attention)
AttentionInterface.register(VISION, vision_attention)
AttentionMaskInterface.register(TEXT, sdpa_mask)
AttentionMaskInterface.register(VISION, sdpa_mask)


def use_segment_attention(model: PreTrainedModel) -> None:
    """Make the model attend within segments when it is called with ``segments``; everything else stays as it was."""
    names = {"": TEXT, "text_config": TEXT}
    if "vision_config" in getattr(model.config, "sub_configs", {}):
        names["vision_config"] = VISION
    model.set_attn_implementation(names)
