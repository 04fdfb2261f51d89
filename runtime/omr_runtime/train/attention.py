"""Attention inside the segments of a packed sequence: never across, never over padding.

Alone knows how a segment mask is avoided: on a GPU torch's variable-length kernel takes the segment borders as they
are; elsewhere segments of like length are laid side by side as one batch (``segments.py``). Legend: T packed tokens,
H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from omr_runtime.models.families import Layout
from omr_runtime.train.segments import (
    MAX_FILLING,
    Group,
    Segments,
    gather,
    groups,
    in_packed_order,
    read,
    spread,
)

varlen_attn: Callable[..., Any] | None
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

KERNEL_SETTINGS = frozenset(signature(varlen_attn).parameters if varlen_attn is not None else ())
"""What this torch's kernel can be told: of 2.10 it knows no window and no scale; of 2.11 it takes grouped keys unasked, later
ones have to be told of them."""

TEXT = "omr_segments"
VISION = "omr_flash_segments"
"""transformers hands a vision tower all its windows in one call if "flash" is part of the name."""

MAX_HEAD = 256
"""Numbers of a head that the kernel takes, a multiple of 8."""


def _grouped(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    segments: Segments,
    scale: float | None,
    causal: bool,
) -> Tensor:
    """Attention within segments by batches of like length; exact, since causal rows never see the filling."""
    parts = groups(segments, MAX_FILLING if causal else 0.0, q_THD.device)
    outs = []
    for group in parts:
        q, k, v = spread(q_THD, group.queries), spread(k_THD, group.keys), spread(v_THD, group.keys)
        gqa = k.shape[1] != q.shape[1]
        if gqa and q.is_cuda and q.dtype == torch.float32:
            # On a GPU fp32 has a kernel only without groups; with them torch would hold all scores.
            k, v, gqa = *(x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v)), False
        mask = _after_prompt(group, q.device) if group.prefix else None
        out = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=causal and mask is None,
            scale=scale,
            enable_gqa=gqa,
        )
        outs.append(gather(out, group.queries))
    return in_packed_order(outs, parts).view(q_THD.shape)


def _after_prompt(group: Group, device: torch.device) -> Tensor:
    """What each token of a branch may see: the prompt before it and its own past."""
    mask = torch.ones(group.queries.length, group.keys.length, dtype=torch.bool, device=device)
    return mask.tril_(group.prefix)


def _varlen(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    cu: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    scale: float | None,
    causal: bool,
) -> Tensor:
    """``cu`` and ``longest`` of queries and of keys; where these are more, the last query sees all of them."""
    assert varlen_attn is not None
    window = (-1, 0) if causal else (-1, -1)
    told: dict[str, Any] = {"scale": scale, "window_size": window}
    if k_THD.shape[1] != q_THD.shape[1] and "enable_gqa" in KERNEL_SETTINGS:
        told["enable_gqa"] = True
    out: Tensor = varlen_attn(q_THD, k_THD, v_THD, *cu, *longest, **told)
    return out


def _has_kernel(x_THD: Tensor) -> bool:
    """Whether the kernel is there and takes such numbers, heads of such a size, and this device."""
    size = x_THD.shape[-1]
    return (
        {"scale", "window_size"} <= KERNEL_SETTINGS
        and x_THD.is_cuda
        and x_THD.dtype in (torch.bfloat16, torch.float16)
        and size % 8 == 0
        and size <= MAX_HEAD
        and _is_recent(x_THD.device)
    )


@lru_cache(maxsize=16)
def _is_recent(device: torch.device) -> bool:
    """Flash attention is for GPUs from Ampere on (compute capability 8.0)."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


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
    if not _has_kernel(q):
        return _grouped(q, k, v, segments, scaling, causal=True)[None], None
    if segments.has_branches:
        rows = segments.key_rows(q.device)
        k, v = read(k, rows), read(v, rows)
    cu = segments.cu_seqlens(q.device), segments.cu_keys(q.device)
    longest = max(segments.lengths), max(segments.key_lengths)
    return _varlen(q, k, v, cu, longest, scaling, causal=True)[None], None


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
        longest = int(max_length_q or cu_seq_lens_q.diff().max())
        cu = cu_seq_lens_q, cu_seq_lens_q
        return _varlen(q, k, v, cu, (longest, longest), scaling, causal=False)[None], None
    windows = Segments(cu_seq_lens_q.diff().tolist())
    return _grouped(q, k, v, windows, scaling, causal=False)[None], None


AttentionInterface.register(TEXT, segment_attention)
AttentionInterface.register(VISION, vision_attention)
AttentionMaskInterface.register(TEXT, sdpa_mask)
AttentionMaskInterface.register(VISION, sdpa_mask)


def use_segment_attention(model: PreTrainedModel) -> None:
    """Make the model attend within segments when it is called with ``segments``; everything else stays as it was."""
    names = {"": TEXT, "text_config": TEXT}
    family = Layout.of(model.config).family
    if family is not None:
        names["vision_config"] = VISION if family.has_windows else "sdpa"
    model.set_attn_implementation(names)
