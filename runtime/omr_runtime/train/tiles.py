"""Hidden states and an output layer to log-probabilities and entropies, a tile of the vocabulary at a time.

All rows meet each tile, so a tile's weight gradient comes whole out of one product: nothing of the size of the weights is
summed up chunk by chunk, in a rounded precision. Tiles are computed again in the backward pass. What is summed is fp32.
Legend: N response tokens, D hidden size, V vocabulary, W entries of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

CHUNK = {"cpu": 1 << 24, "cuda": 1 << 26}
"""Logits of one tile: 64 and 256 MiB in fp32. A GPU is busy with larger products only."""

ALIGNED = 256
"""Tiles are as many entries wide, times a whole number, where they are not narrower: a GPU's fast products want rows of a
matrix to start at a multiple of 16 bytes, and fall to a fifth of their speed where they do not."""


def is_plain(head: object, dtype: torch.dtype) -> TypeGuard[nn.Linear]:
    """Whether an output layer is its weight and bias alone, in ``dtype``: no adapter, no shards to gather, nobody listening."""
    return (
        type(head) is nn.Linear
        and type(head.weight) is nn.Parameter
        and head.weight.ndim == 2
        and head.weight.dtype == dtype
        and not hasattr(head.weight, "ds_id")
        and not (head._forward_hooks or head._forward_pre_hooks)
    )


def tiled_logprobs(
    head: nn.Linear,
    hidden_ND: Tensor,
    targets_N: Tensor,
    temperature: float,
    chunk: int,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """``(logp_N, entropy_N)`` in fp32; the entropy has a gradient with ``entropy_grad`` alone. No more than ``chunk`` logits
    stand at once."""
    size = width(chunk, len(hidden_ND))
    found: tuple[Tensor, Tensor] = _Tiles.apply(
        hidden_ND, head.weight, head.bias, targets_N, temperature, size, entropy_grad
    )  # type: ignore[no-untyped-call]
    return found


def width(chunk: int, rows: int) -> int:
    """Entries of a tile.

    >>> width(1 << 26, rows=14_000), width(1 << 10, rows=100)
    (4608, 10)
    """
    size = max(1, chunk // max(1, rows))
    return size - size % ALIGNED if size > ALIGNED else size


def _tiles(vocab: int, size: int) -> Iterator[slice]:
    for start in range(0, vocab, size):
        yield slice(start, min(vocab, start + size))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """In fp32: not rounded to the factors' precision where the device can do without."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a, b).float()


def _logits(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, tile: slice, temperature: float
) -> Tensor:
    logits_NW = _product(hidden_ND, weight_VD[tile].T)
    if bias_V is not None:
        logits_NW += bias_V[tile]
    if temperature != 1.0:
        logits_NW /= temperature
    return logits_NW


class _Sums:
    """Of all tiles so far: the largest logit, and relative to it the sum of exponentials and of their logits."""

    def __init__(self, targets_N: Tensor) -> None:
        self.targets_N = targets_N
        self.top_N = targets_N.new_full(targets_N.shape, -1e30, dtype=torch.float32)
        self.exp_N = torch.zeros_like(self.top_N)
        self.mean_N = torch.zeros_like(self.top_N)
        self.target_N = torch.zeros_like(self.top_N)

    def add(self, logits_NW: Tensor, start: int) -> None:
        """``logits_NW`` is used up."""
        place_N = self.targets_N - start
        inside_N = (place_N >= 0) & (place_N < logits_NW.shape[1])
        seen_N = logits_NW.gather(1, place_N.clamp(0, logits_NW.shape[1] - 1)[:, None])[:, 0]
        self.target_N = torch.where(inside_N, seen_N, self.target_N)
        top_N = torch.maximum(self.top_N, logits_NW.amax(-1))
        below_NW = logits_NW.sub_(top_N[:, None])
        exp_NW = below_NW.exp()
        fallen_N = self.top_N - top_N
        shrunk_N = fallen_N.exp()
        self.mean_N = shrunk_N * (self.mean_N + fallen_N * self.exp_N)
        self.exp_N = shrunk_N * self.exp_N + exp_NW.sum(-1)
        self.mean_N += exp_NW.mul_(below_NW).sum(-1)
        self.top_N = top_N

    @property
    def normaliser_N(self) -> Tensor:
        return self.top_N + self.exp_N.log()

    @property
    def entropy_N(self) -> Tensor:
        return self.exp_N.log() - self.mean_N / self.exp_N


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        temperature: float,
        size: int,
        entropy_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        sums = _Sums(targets_N)
        for tile in _tiles(len(weight_VD), size):
            sums.add(_logits(hidden_ND, weight_VD, bias_V, tile, temperature), tile.start)
        normaliser_N, entropy_N = sums.normaliser_N, sums.entropy_N
        kept_N = entropy_N if entropy_grad else None
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, normaliser_N, kept_N)
        ctx.temperature, ctx.size = temperature, size
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy_N)
        return sums.target_N - normaliser_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N, normaliser_N, entropy_N = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        hidden_grad = torch.zeros_like(hidden_ND, dtype=torch.float32) if to_hidden else None
        weight_grad = torch.empty_like(weight_VD) if to_weight else None
        bias_grad = torch.empty_like(bias_V) if to_bias and bias_V is not None else None
        grad_N = grads[0].float() / ctx.temperature
        spread = None
        if entropy_N is not None:
            spread = entropy_N, grads[1].float() / ctx.temperature
        for tile in _tiles(len(weight_VD), ctx.size):
            logits_NW = _logits(hidden_ND, weight_VD, bias_V, tile, ctx.temperature)
            error_NW = _error(logits_NW, normaliser_N, grad_N, targets_N - tile.start, spread)
            if bias_grad is not None:
                bias_grad[tile] = error_NW.sum(0)
            error_NW = error_NW.to(hidden_ND.dtype)
            if hidden_grad is not None:
                hidden_grad += _product(error_NW, weight_VD[tile])
            if weight_grad is not None:
                torch.mm(error_NW.T, hidden_ND, out=weight_grad[tile])
        back = hidden_grad.to(hidden_ND.dtype) if hidden_grad is not None else None
        return back, weight_grad, bias_grad, None, None, None, None


def _error(
    logits_NW: Tensor,
    normaliser_N: Tensor,
    grad_N: Tensor,
    place_N: Tensor,
    spread: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """``grad x (1 at the target - p)``, with ``spread`` = (H, its gradient g) less ``g p (log p + H)``: what a logit changes of
    the entropy H. ``logits_NW`` is used up."""
    logp_NW = logits_NW.sub_(normaliser_N[:, None])
    if spread is None:
        error_NW = logp_NW.exp_().mul_(-grad_N[:, None])
    else:
        entropy_N, to_entropy_N = spread
        pull_NW = (logp_NW + entropy_N[:, None]).mul_(to_entropy_N[:, None]).add_(grad_N[:, None])
        error_NW = logp_NW.exp_().mul_(pull_NW.neg_())
    inside_N = (place_N >= 0) & (place_N < error_NW.shape[1])
    at_N1 = place_N.clamp(0, error_NW.shape[1] - 1)[:, None]
    return error_NW.scatter_add_(1, at_N1, torch.where(inside_N, grad_N, 0.0)[:, None])
