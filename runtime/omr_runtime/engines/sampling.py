"""Logits and one uniform number for each row in, the next token of each row out.

A row's draws come from numbers made of its own seed alone, so a sample does not depend on what else is in its batch.
The draw inverts the cumulative distribution: one number for each token instead of one for each word of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_KEY_MASK = (1 << 64) - 1


def uniforms(seed: int, count: int) -> Tensor:
    """``count`` numbers in [0, 1) in double precision; a longer draw from the same seed begins with a shorter one."""
    return torch.from_numpy(
        np.random.Generator(np.random.Philox(key=seed & _KEY_MASK)).random(count)
    )


def uniform_rows(seeds: Sequence[int], count: int) -> Tensor:
    """One row of ``uniforms`` for each seed: ``[len(seeds), count]``."""
    return torch.stack([uniforms(seed, count) for seed in seeds])


def next_tokens(
    logits_BV: Tensor,
    u_B: Tensor,
    temperature: float,
    top_p: float = 1.0,
    top_k: int | None = None,
    never: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The drawn tokens and their log-probabilities, both ``[B]``.

    The log-probability is that of the whole distribution at this temperature (at temperature 1 for a greedy draw), before
    ``top_p`` and ``top_k`` cut its tail and the tokens ``never`` are left out: what a training step computes for the same
    tokens.
    """
    scaled_BV = logits_BV.float() / temperature if temperature > 0 else logits_BV.float()
    logprobs_BV = torch.log_softmax(scaled_BV, -1)
    drawn_BV = logprobs_BV
    if never is not None:
        drawn_BV = logprobs_BV.index_fill(-1, never, float("-inf"))
    if temperature > 0:
        tokens_B = _invert(_cut(drawn_BV, top_p, top_k), u_B)
    else:
        tokens_B = drawn_BV.argmax(-1)
    return tokens_B, logprobs_BV.gather(-1, tokens_B[:, None])[:, 0]


def _cut(logprobs_BV: Tensor, top_p: float, top_k: int | None) -> Tensor:
    """Probabilities with what lies outside ``top_k`` and then ``top_p`` set to 0 (not rescaled)."""
    probs_BV = logprobs_BV.exp()
    if top_k is not None and top_k < probs_BV.shape[-1]:
        kept, where = probs_BV.topk(top_k, -1)
        probs_BV = torch.zeros_like(probs_BV).scatter_(-1, where, kept)
    if top_p < 1:
        ordered, where = probs_BV.sort(dim=-1, descending=True, stable=True)
        total = ordered.sum(-1, keepdim=True)
        before = ordered.cumsum(-1) - ordered
        probs_BV = torch.zeros_like(probs_BV).scatter_(
            -1, where, ordered.where(before < top_p * total, 0.0)
        )
    return probs_BV


def _invert(weights_BV: Tensor, u_B: Tensor) -> Tensor:
    """The first token at which the running sum of the weights passes ``u`` times their total."""
    sums_BV = weights_BV.double().cumsum(-1)
    target_B1 = (u_B.to(sums_BV.device) * sums_BV[:, -1])[:, None]
    tokens_B = torch.searchsorted(sums_BV, target_B1, right=True)[:, 0]
    return tokens_B.clamp_(max=weights_BV.shape[-1] - 1)
