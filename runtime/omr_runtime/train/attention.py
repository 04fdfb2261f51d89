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
    laid,
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
    window: int | None = None,
) -> Tensor:
    """Attention within segments by batches of like length; exact, since no real row sees the filling: it stands after all
    that is before a token, and belongs to no image."""
    parts = groups(segments, MAX_FILLING if causal else 0.0, q_THD.device)
    outs = []
    for i, group in enumerate(parts):
        q, k, v = spread(q_THD, group.queries), spread(k_THD, group.keys), spread(v_THD, group.keys)
        gqa = k.shape[1] != q.shape[1]
        mask = _mask(i, group, segments, window, q.device) if causal else None
        if gqa and q.is_cuda and (q.dtype == torch.float32 or mask is not None):
            # On a GPU fp32 and masks have a kernel only without groups; with them torch would hold all scores.
            k, v, gqa = *(x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v)), False
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


def _mask(
    index: int, group: Group, segments: Segments, window: int | None, device: torch.device
) -> Tensor | None:
    """What each token of a group may see, made once for all layers; None where that is its own past and nothing else."""
    key = index, window, device
    if key not in segments.masks:
        segments.masks[key] = _made_mask(group, segments.pictures, window, device)
    return segments.masks[key]


def _made_mask(
    group: Group, pictures_T: Tensor | None, window: int | None, device: torch.device
) -> Tensor | None:
    """The prompt before it and its own past; of these the last ``window``; and its image, also what is after."""
    is_far = window is not None and group.keys.length > window
    if not group.prefix and pictures_T is None and not is_far:
        return None
    at_Q1 = torch.arange(group.queries.length, device=device)[:, None] + group.prefix
    keys_K = torch.arange(group.keys.length, device=device)
    seen = keys_K <= at_Q1
    if pictures_T is not None:
        of_BQ, of_BK = (laid(pictures_T.to(device), side) for side in (group.queries, group.keys))
        same_BQK = (of_BQ[:, :, None] == of_BK[:, None]) & (of_BQ[:, :, None] > 0)
        seen = (seen | same_BQK)[:, None]
    return seen & (keys_K > at_Q1 - window) if window is not None else seen


def _varlen(
    q_THD: Tensor,
    k_THD: Tensor,
    v_THD: Tensor,
    cu: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    scale: float | None,
    causal: bool,
    window: int | None = None,
) -> Tensor:
    """``cu`` and ``longest`` of queries and of keys; where these are more, the last query sees all of them, or the last
    ``window`` with itself."""
    assert varlen_attn is not None
    sides = (-1 if window is None else window - 1, 0) if causal else (-1, -1)
    told: dict[str, Any] = {"scale": scale, "window_size": sides}
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
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention per segment where ``segments`` are given, transformers' own SDPA where not (generation).

    query [1, H, T, D] to output [1, T, H, D]. ``attention_mask`` is not looked at for packed input; a layer with a
    ``sliding_window`` sees so many tokens, itself among them.
    """
    if segments is None:
        whole: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return whole
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if not _has_kernel(q) or segments.pictures is not None:
        return _grouped(q, k, v, segments, scaling, True, sliding_window)[None], None
    if segments.has_branches:
        rows = segments.key_rows(q.device)
        k, v = read(k, rows), read(v, rows)
    cu = segments.cu_seqlens(q.device), segments.cu_keys(q.device)
    longest = max(segments.lengths), max(segments.key_lengths)
    return _varlen(q, k, v, cu, longest, scaling, True, sliding_window)[None], None


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
