"""A packed batch to the log-probability and entropy of each response token, logits made a chunk at a time.

Only the places that predict a response token go through the output layer, and never more than ``CHUNK`` logits stand
in memory: a chunk is made again in the backward pass. A plain output layer is cut by the vocabulary (``tiles``), any other
by the tokens. Legend: N response tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from omr_runtime.train.attention import use_segment_attention
from omr_runtime.train.batching import PackedBatch
from omr_runtime.train.patches import use_patch_products
from omr_runtime.train.tiles import CHUNK, is_plain, tiled_logprobs


def _scores(
    head: Callable[[Tensor], Tensor],
    hidden_ND: Tensor,
    targets_N: Tensor,
    temperature: float,
    entropy_grad: bool,
) -> tuple[Tensor, Tensor]:
    logits_NV = head(hidden_ND).float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    normaliser_N = torch.logsumexp(logits_NV, dim=-1)
    logp_N = logits_NV.gather(1, targets_N[:, None])[:, 0] - normaliser_N
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        mean_N = (torch.exp(logits_NV - normaliser_N[:, None]) * logits_NV).sum(-1)
        entropy_N = normaliser_N - mean_N
    return logp_N, entropy_N


def token_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden_ND: Tensor,
    targets_N: Tensor,
    vocab: int,
    temperature: float = 1.0,
    fused: bool = True,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution (nats, fp32, [N] each).

    The entropy has a gradient with ``entropy_grad`` alone: most losses only report it. ``head`` is the output layer. With ``fused`` no more than ``CHUNK`` logits exist at once, with the same result.
    """
    chunk = CHUNK.get(hidden_ND.device.type, CHUNK["cpu"])
    size = max(1, chunk // vocab) if fused else max(1, len(hidden_ND))
    if len(hidden_ND) <= size:
        return _scores(head, hidden_ND, targets_N, temperature, entropy_grad)
    if is_plain(head, hidden_ND.dtype):
        return tiled_logprobs(head, hidden_ND, targets_N, temperature, chunk, entropy_grad)
    parts = [
        checkpoint(_scores, head, hidden, targets, temperature, entropy_grad, use_reentrant=False)
        for hidden, targets in zip(
            torch.split(hidden_ND, size), torch.split(targets_N, size), strict=True
        )
    ]
    logps, entropies = zip(*parts, strict=True)
    return torch.cat(logps), torch.cat(entropies)


class Scorer(nn.Module):
    """A causal language model, with or without vision, that gives token log-probabilities instead of logits.

    It is the module that is sharded and trained, so that the output layer runs inside its forward pass. With ``entropy_grad``
    the entropy can be part of a loss.
    """

    def __init__(
        self, model: PreTrainedModel, fused: bool = True, entropy_grad: bool = False
    ) -> None:
        super().__init__()
        use_segment_attention(model)
        use_patch_products(model)
        self.model = model
        self.fused = fused
        self.entropy_grad = entropy_grad

    def forward(self, batch: PackedBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """``(logp_N, entropy_N)`` of the batch's response tokens."""
        model: Any = self.model
        hidden_TD = model.base_model(**batch.model_inputs()).last_hidden_state[0]
        head = model.get_output_embeddings()
        hidden_ND = hidden_TD.index_select(0, batch.predict)
        vocab = (
            head.weight.shape[0]
            if head.weight.ndim == 2
            else model.config.get_text_config().vocab_size
        )
        return token_logprobs(
            head, hidden_ND, batch.targets, vocab, temperature, self.fused, self.entropy_grad
        )
