"""Token log-probabilities to the losses of the papers, each with its formula and source.

Every loss is a sum divided by a count over the whole step: all ranks and all micro-batches. Added up over them it is
the mean that the formula asks for, so a step cut into other pieces has the same gradient.
Legend: N response tokens, S sequences; ``segment_N`` is the sequence of each token, r the importance ratio, A the
advantage, e the clip range [low, high].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from omrlang.types import Algorithm, DrGrpo, Gspo, Overlong


@dataclass(frozen=True, slots=True)
class Counts:
    """What a whole step averages over: sequences and response tokens of all ranks and micro-batches. ``length`` is the
    constant that stands for the length of every response in Dr. GRPO."""

    num_sequences: float
    num_tokens: float
    length: float = 1.0


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """``loss`` is this micro-batch's part of the step's mean. The others are parts of token means, without gradient:
    ``clipped_low`` and ``clipped_high`` of the share of tokens whose ratio the clip held, ``kl`` of the estimated
    divergence from the reference, ``ratio`` of the importance ratio."""

    loss: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    kl: Tensor
    ratio: Tensor


def cross_entropy(logp_N: Tensor, weight_N: Tensor, num_tokens: float) -> Tensor:
    """Mean over all response tokens of the step: ``- sum_N log p / num_tokens``."""
    return -(logp_N * weight_N).sum() / num_tokens


def _sequence_sum(x_N: Tensor, segment_N: Tensor, num_segments: int) -> Tensor:
    return x_N.new_zeros(num_segments).index_add_(0, segment_N, x_N)


def token_log_ratio(logp_N: Tensor, old_logp_N: Tensor) -> Tensor:
    """``log r_t = log p(y_t) - log p_old(y_t)``: GRPO, arXiv 2402.03300, equation 3."""
    return logp_N - old_logp_N


def sequence_log_ratio(
    logp_N: Tensor, old_logp_N: Tensor, segment_N: Tensor, weight_N: Tensor, num_segments: int
) -> Tensor:
    """``log s_i = 1/|y_i| sum_t (log p(y_t) - log p_old(y_t))``, the same for each token of a sequence.

    GSPO, arXiv 2507.18071, equation 7: the ratio of the whole sequence's likelihood, normalised by its length.
    """
    total_S = _sequence_sum((logp_N - old_logp_N) * weight_N, segment_N, num_segments)
    length_S = _sequence_sum(weight_N, segment_N, num_segments).clamp(min=1.0)
    return (total_S / length_S)[segment_N]


def clipped_objective(
    log_ratio_N: Tensor, advantage_N: Tensor, clip: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``- min(r A, clip(r, 1 - e_low, 1 + e_high) A)``: PPO's surrogate, arXiv 1707.06347, equation 7, with the two
    bounds apart as in DAPO, arXiv 2503.14476, equation 10. Gives the loss, where each bound holds, and the ratio."""
    low, high = clip
    ratio_N = torch.exp(log_ratio_N)
    bounded_N = ratio_N.clamp(1 - low, 1 + high)
    loss_N = -torch.min(ratio_N * advantage_N, bounded_N * advantage_N)
    at_low_N = (ratio_N < 1 - low) & (advantage_N < 0)
    at_high_N = (ratio_N > 1 + high) & (advantage_N > 0)
    return loss_N, at_low_N, at_high_N, ratio_N


def truncated_weights(logp_N: Tensor, drawn_logp_N: Tensor, cap: float) -> Tensor:
    """``min(exp(log p - log q), cap)`` of each token, p the trainer's probability and q that of the engine which drew it,
    without gradient: truncated importance sampling, E. L. Ionides (2008); for rollouts F. Yao et al. (2025)."""
    return torch.exp(logp_N.detach() - drawn_logp_N).clamp(max=cap)


def dual_clipped(loss_N: Tensor, advantage_N: Tensor, most: float) -> Tensor:
    """``min(loss, - c A)`` where A < 0: dual-clip PPO, arXiv 1912.09729. A token that has become much likelier
    and should not have been drawn would outweigh a whole batch otherwise: its ratio has no upper bound there."""
    bounded_N = torch.min(loss_N, -most * advantage_N)
    return torch.where(advantage_N < 0, bounded_N, loss_N)


def kl_estimate(
    logp_N: Tensor, ref_logp_N: Tensor, estimator: Literal["k1", "k2", "k3"] = "k3"
) -> Tensor:
    """KL(p || q) for reference q from tokens that p drew: J. Schulman, "Approximating KL divergence" (2020).

    ``k1``: ``log p - log q``, unbiased, of either sign; its own gradient is that of ``log p``, whose mean is 0, so as a term of
    a loss it pulls nowhere. ``k2``: ``(log p - log q)^2 / 2``, never negative, biased; its gradient is that of the divergence.
    ``k3``: ``exp(log q - log p) - (log q - log p) - 1``, unbiased and never negative; GRPO, arXiv 2402.03300, equation 4."""
    difference_N = ref_logp_N - logp_N
    match estimator:
        case "k1":
            return -difference_N
        case "k2":
            return difference_N.square() / 2
        case "k3":
            return torch.exp(difference_N) - difference_N - 1


def step_mean(
    x_N: Tensor,
    segment_N: Tensor,
    weight_N: Tensor,
    num_segments: int,
    counts: Counts,
    mean: Literal["sequence", "token", "constant"],
) -> Tensor:
    """This micro-batch's part of the step's mean of a token quantity.

    ``sequence``: ``1/S sum_i 1/|y_i| sum_t x`` (GRPO, equation 3; GSPO, equation 5). ``token``: ``1/N sum_i sum_t x``
    (DAPO, equation 8). ``constant``: ``1/S sum_i 1/L sum_t x`` for a constant L (Dr. GRPO, arXiv 2503.20783,
    section 3.2).
    """
    if mean == "constant":
        return (x_N * weight_N).sum() / (counts.num_sequences * counts.length)
    if mean == "token":
        return (x_N * weight_N).sum() / counts.num_tokens
    length_S = _sequence_sum(weight_N, segment_N, num_segments).clamp(min=1.0)
    return (
        _sequence_sum(x_N * weight_N, segment_N, num_segments) / length_S
    ).sum() / counts.num_sequences


def policy_loss(
    algorithm: Algorithm,
    logp_N: Tensor,
    old_logp_N: Tensor | None,
    advantage_S: Tensor,
    segment_N: Tensor,
    weight_N: Tensor,
    counts: Counts,
    ref_logp_N: Tensor | None = None,
    entropy_N: Tensor | None = None,
    rollout_weight_N: Tensor | None = None,
) -> PolicyTerms:
    """The loss of ``gspo``, ``grpo``, ``dr_grpo`` or ``dapo`` for one micro-batch.

    GSPO takes the sequence ratio, the others the token ratio; all clip it, from both sides where
    ``dual_clip`` says so, count each token by its ``rollout_weight_N``, add ``kl`` times the estimated divergence, take away ``entropy`` times the entropy of the next
    token's distribution (PPO, arXiv 1707.06347, equation 9) and average by ``algorithm.mean``. ``old_logp_N`` None means the policy has not moved since the rollout (r = 1).
    """
    num_segments = len(advantage_S)
    old_N = logp_N.detach() if old_logp_N is None else old_logp_N
    if isinstance(algorithm, Gspo):
        log_ratio_N = sequence_log_ratio(logp_N, old_N, segment_N, weight_N, num_segments)
    else:
        log_ratio_N = token_log_ratio(logp_N, old_N)
    loss_N, low_N, high_N, ratio_N = clipped_objective(
        log_ratio_N, advantage_S[segment_N], algorithm.clip
    )
    if algorithm.dual_clip is not None:
        loss_N = dual_clipped(loss_N, advantage_S[segment_N], algorithm.dual_clip)
    if rollout_weight_N is not None:
        loss_N = loss_N * rollout_weight_N
    kl_N = torch.zeros_like(loss_N)
    if algorithm.kl:
        assert ref_logp_N is not None, "a divergence is weighted but no reference is given"
        kl_N = kl_estimate(logp_N, ref_logp_N, algorithm.kl_estimator)
        loss_N = loss_N + algorithm.kl * kl_N
    if algorithm.entropy:
        assert entropy_N is not None, "an entropy is weighted but none is given"
        loss_N = loss_N - algorithm.entropy * entropy_N

    def token_mean(x_N: Tensor) -> Tensor:
        return (x_N.detach().float() * weight_N).sum() / counts.num_tokens

    mean = "constant" if isinstance(algorithm, DrGrpo) else algorithm.mean
    loss = step_mean(loss_N, segment_N, weight_N, num_segments, counts, mean)
    return PolicyTerms(
        loss, token_mean(low_N), token_mean(high_N), token_mean(kl_N), token_mean(ratio_N)
    )


def overlong_penalty(num_tokens: int, max_response: int, overlong: Overlong) -> float:
    """DAPO's soft penalty, arXiv 2503.14476, equation 13: 0 up to ``max_response - buffer``, then a line to -1 (times
    ``factor``) at ``max_response``."""
    over = num_tokens - (max_response - overlong.buffer)
    return -overlong.factor * min(1.0, max(0.0, over / overlong.buffer))
