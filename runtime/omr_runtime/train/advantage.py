"""Rewards of a group's rollouts to advantages, and which of them an update is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from omr_runtime.train.losses import overlong_penalty
from omrlang.types import Algorithm, Dapo, DrGrpo

MIN_SPREAD = 1e-8
"""A group whose rewards differ by less has nothing to teach."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """``values[i]`` is the advantage of rollout i, None where its reward is unknown. ``has_spread`` is false where all
    known rewards are the same; the advantages are 0 then."""

    values: tuple[float | None, ...]
    has_spread: bool


def spread(rewards: Sequence[float | None]) -> bool:
    """Whether the known rewards of a group differ."""
    known = [reward for reward in rewards if reward is not None]
    return len(known) > 1 and max(known) - min(known) >= MIN_SPREAD


def group_advantages(rewards: Sequence[float | None], by_spread: bool = True) -> Advantages:
    """``A_i = (R_i - mean(R)) / (std(R) + 1e-4)`` over the group's known rewards; GRPO, arXiv 2402.03300, section 4.1.2.

    The standard deviation is that of a sample (divided by n - 1). Without ``by_spread`` nothing is divided by it: Dr. GRPO,
    arXiv 2503.20783, section 3.2.

    >>> group_advantages([1.0, 1.0, None]).has_spread
    False
    >>> group_advantages([1.0, 0.0], by_spread=False).values
    (0.5, -0.5)
    """
    known = [reward for reward in rewards if reward is not None]
    if not spread(rewards):
        return Advantages(tuple(None if reward is None else 0.0 for reward in rewards), False)
    mean = sum(known) / len(known)
    std = math.sqrt(sum((reward - mean) ** 2 for reward in known) / (len(known) - 1))
    scale = std + 1e-4 if by_spread else 1.0
    values = (None if reward is None else (reward - mean) / scale for reward in rewards)
    return Advantages(tuple(values), True)


def penalty(num_tokens: int, max_response: int, algorithm: Algorithm) -> float | None:
    """What a response loses by its length: DAPO's soft penalty; None where the recipe has none."""
    if not isinstance(algorithm, Dapo) or algorithm.overlong is None:
        return None
    return overlong_penalty(num_tokens, max_response, algorithm.overlong)


def divides_by_spread(algorithm: Algorithm) -> bool:
    """Whether advantages are in units of their group's standard deviation."""
    return not isinstance(algorithm, DrGrpo)


def leaves_out_flat_groups(algorithm: Algorithm) -> bool:
    """Whether groups without spread are no part of the step's mean: DAPO filters them (arXiv 2503.14476, section 3.2);
    the others average over all, and the gradient of such a group is 0 anyway."""
    return isinstance(algorithm, Dapo)


def needs_flat_groups(algorithm: Algorithm) -> bool:
    """Whether groups without spread still have a gradient: that of the divergence from the reference, or of the entropy."""
    return (algorithm.kl > 0 or algorithm.entropy > 0) and not leaves_out_flat_groups(algorithm)
