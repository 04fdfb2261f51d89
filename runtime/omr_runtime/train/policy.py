"""Scored rollouts to optimiser steps of the policy: old log-probs where they are needed, the loss, its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from omr_runtime.models import Loaded
from omr_runtime.train.advantage import leaves_out_flat_groups, needs_flat_groups
from omr_runtime.train.batching import PackedBatch
from omr_runtime.train.logprobs import Scorer
from omr_runtime.train.loop import Trainer
from omr_runtime.train.losses import (
    Counts,
    PolicyTerms,
    kl_estimate,
    policy_loss,
    truncated_weights,
)
from omr_runtime.train.rollout import Rollout, every, load_whole
from omr_runtime.train.share import AskOf, Learned, share_out
from omrlang.schema import Rl
from omrlang.settle import pass_tokens, ratio_to_engine, response_norm

Groups: TypeAlias = Sequence[Sequence[Rollout]]
LogProbs: TypeAlias = dict[str, Tensor]
"""Log-probabilities of a rollout's response tokens, by its name."""
Reference: TypeAlias = Callable[[], AbstractContextManager[Scorer]]
"""What scores as the model that training started from did, as long as one is inside."""


@dataclass(frozen=True, slots=True)
class UpdateFigures:
    """Of one optimiser step, over all ranks. ``clip_fraction`` and ``kl``, the divergence from the reference, are over all
    tokens that the step's mean is over. The others are over those that were read again, which groups without spread are not
    where they teach nothing; None where no token was. ``rollout_kl`` is the estimated divergence (arXiv 2402.03300, equation 4)
    of the engine that rolled out from the weights that were trained. ``rollout_weight`` is the
    mean weight by which ``rollout_correction`` counts a token and ``rollout_weight_capped`` the share at its cap; None without
    it. ``flops`` are those of the passes with a gradient."""

    loss: float
    grad_norm: float
    flops: float
    entropy: float | None
    clip_fraction: float
    kl: float
    rollout_kl: float | None
    rollout_weight: float | None
    rollout_weight_capped: float | None


@dataclass(frozen=True, slots=True)
class Share:
    """What this rank trains of an update, and what all ranks' losses are divided by."""

    counts: Counts
    micro_batches: Sequence[Sequence[Learned]]

    @property
    def by_name(self) -> dict[str, Learned]:
        return {one.sample.id: one for batch in self.micro_batches for one in batch}


@dataclass(frozen=True, slots=True)
class Policy:
    """The trainer, the frozen reference where the recipe weights the divergence from it, and the prompts of rollouts that another
    rank drew."""

    spec: Rl
    trainer: Trainer
    reference: Reference | None
    ask_of: AskOf

    def update(self, batches: Sequence[Groups], lr: float) -> list[UpdateFigures]:
        """One optimiser step for each of this rank's ``batches``, with ratios r = p / p_old of the policy that is trained.

        p_old is the trainer's policy when the step begins. With one batch that is the one that is trained, so its log-probs need
        not be computed before. With ``behind`` the rollouts are of an older policy q, and p_old = q as its engine recorded it, in
        every batch: r = p / q, so that the clip range bounds how far the policy goes from the one that drew (PPO,
        arXiv 1707.06347, equation 7; as TRL's AsyncGRPOTrainer takes it). With
        ``rollout_correction`` beside it the two roles of p_old are apart: the clip range holds r = p / p_old for the policy at
        the step's begin, and each token counts min(p_old / q, cap) times (decoupled PPO: Hilton et al., arXiv 2110.00641,
        section 2; for language models AReaL, arXiv 2505.24298, section 5.2)."""
        shares = [self._share(groups) for groups in batches]
        old: LogProbs | None = None
        if ratio_to_engine(self.spec):
            old = self._drawn_logprobs(shares)
        elif len(batches) > 1:
            old = self._old_logprobs(shares)
        return [self._update(share, lr, old) for share in shares]

    def _share(self, groups: Groups) -> Share:
        trainer, budget = self.trainer, pass_tokens(self.spec)
        mine = share_out(_used(groups, self.spec), trainer, self.ask_of, budget)
        return Share(self._counts(groups), mine)

    def _drawn_logprobs(self, shares: Sequence[Share]) -> LogProbs:
        device = self.trainer.device
        return {
            name: torch.tensor(one.logprobs, device=device)
            for share in shares
            for name, one in share.by_name.items()
        }

    def _update(self, share: Share, lr: float, old: LogProbs | None) -> UpdateFigures:
        update = _Update(self, share, old)
        packed = self._pack(share)
        loss, norm = self.trainer.step(packed, update.loss, lr, self.spec.temperature)
        read = sum(one.sample.num_response for one in share.by_name.values())
        told = [self.trainer.cost.of(packed), float(read), *update.sums.tolist()]
        return self._figures(loss, norm, *self.trainer.total(told))

    def _figures(
        self,
        loss: float,
        norm: float,
        flops: float,
        read: float,
        clipped: float,
        kl: float,
        *sums: float,
    ) -> UpdateFigures:
        """``sums`` are over the ``read`` tokens."""
        entropy, apart, weight, capped = (total / read if read else None for total in sums)
        if self.spec.rollout_correction is None:
            weight = capped = None
        return UpdateFigures(loss, norm, flops, entropy, clipped, kl, apart, weight, capped)

    def _counts(self, groups: Groups) -> Counts:
        """What the step averages over: every rollout whose reward is known, also those of groups that teach nothing,
        unless the algorithm leaves these out."""
        leave_out = leaves_out_flat_groups(self.spec.algorithm)
        counted = [
            len(rollout.token_ids)
            for rollout in every(groups)
            if rollout.advantage is not None and not (rollout.flat and leave_out)
        ]
        sequences, tokens = self.trainer.total([len(counted), sum(counted)])
        return Counts(max(sequences, 1.0), max(tokens, 1.0), response_norm(self.spec))

    def _pack(self, share: Share) -> list[PackedBatch]:
        return [self.trainer.pack([one.sample for one in batch]) for batch in share.micro_batches]

    def _old_logprobs(self, shares: Sequence[Share]) -> LogProbs:
        found: LogProbs = {}
        for share in shares:
            for batch in self._pack(share):
                logp_N, _ = self.trainer.score(batch, self.spec.temperature)
                lengths = torch.bincount(batch.segment, minlength=batch.num_samples).tolist()
                found |= zip(batch.ids, torch.split(logp_N, lengths), strict=True)
        return found


def open_policy(spec: Rl, trainer: Trainer, loaded: Loaded, ask_of: AskOf) -> Policy:
    """The policy to train. Where ``kl`` is above 0 its reference is what it started from: itself without its adapters, or else a
    second copy."""
    if not spec.algorithm.kl:
        return Policy(spec, trainer, None, ask_of)
    if spec.adapter is not None:
        return Policy(spec, trainer, trainer.at_the_start, ask_of)
    start = load_whole(spec, trainer, loaded).model
    assert start is not None, "weights were asked for"
    scorer = Scorer(start.requires_grad_(False))
    return Policy(spec, trainer, lambda: nullcontext(scorer), ask_of)


def _used(groups: Groups, spec: Rl) -> list[Rollout]:
    """The rollouts that an update has a gradient from."""
    flat_too = needs_flat_groups(spec.algorithm)
    return [
        rollout
        for rollout in every(groups)
        if rollout.advantage is not None and (flat_too or not rollout.flat)
    ]


class _Update:
    """The loss of one optimiser step, and the sums behind its figures."""

    def __init__(self, policy: Policy, share: Share, old: LogProbs | None) -> None:
        self.policy, self.old = policy, old
        self.by_name, self.counts = share.by_name, share.counts
        self.sums = torch.zeros(6, dtype=torch.float64, device=policy.trainer.device)

    def loss(self, batch: PackedBatch, logp_N: Tensor, entropy_N: Tensor) -> Tensor:
        """This micro-batch's part of the step's loss. A dummy has advantage and weight 0."""
        rollouts = [self.by_name.get(name) for name in batch.ids]
        advantages = [r.advantage if r is not None else 0.0 for r in rollouts]
        drawn_N = logp_N.new_tensor([x for r in rollouts for x in (r.logprobs if r else [0.0])])
        old_N = self._old(batch)
        weight_N = self._rollout_weights(logp_N if old_N is None else old_N, drawn_N)
        terms = policy_loss(
            self.policy.spec.algorithm,
            logp_N,
            old_N,
            logp_N.new_tensor(advantages),
            batch.segment,
            batch.weight,
            self.counts,
            self._reference(batch),
            entropy_N,
            weight_N,
        )
        self._add(batch, terms, kl_estimate(drawn_N, logp_N.detach()), entropy_N, weight_N)
        return terms.loss

    def _rollout_weights(self, logp_N: Tensor, drawn_N: Tensor) -> Tensor | None:
        """``logp_N`` is the trainer's when the rollouts were drawn."""
        correction = self.policy.spec.rollout_correction
        return None if correction is None else truncated_weights(logp_N, drawn_N, correction.cap)

    def _add(
        self,
        batch: PackedBatch,
        terms: PolicyTerms,
        apart_N: Tensor,
        entropy_N: Tensor,
        weight_N: Tensor | None,
    ) -> None:
        """Kept on the device: to read a figure here would make the host wait before each backward pass."""
        correction = self.policy.spec.rollout_correction
        found = [entropy_N.detach(), apart_N]
        if correction is not None and weight_N is not None:
            found += [weight_N, (weight_N >= correction.cap).float()]
        sums = [(x_N * batch.weight).sum() for x_N in found]
        figures = [terms.clipped_low + terms.clipped_high, terms.kl, *sums]
        self.sums[: len(figures)] += torch.stack([x.double() for x in figures])

    def _old(self, batch: PackedBatch) -> Tensor | None:
        if self.old is None:
            return None
        dummy = batch.weight.new_zeros(1)
        return torch.cat([self.old.get(name, dummy) for name in batch.ids])

    def _reference(self, batch: PackedBatch) -> Tensor | None:
        if self.policy.reference is None:
            return None
        with torch.no_grad(), self.policy.reference() as score:
            logp_N: Tensor = score(batch, self.policy.spec.temperature)[0]
        return logp_N
