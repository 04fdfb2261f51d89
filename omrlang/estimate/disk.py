"""A training stage's checkpoints become bytes on disk: how many stay at the same time, and how large each is."""

from __future__ import annotations

import math

from omrlang.estimate.ranges import derive, exact, product, unknown
from omrlang.estimate.shapes import adapter_params, frozen_params, moments_bytes, origin_of
from omrlang.plan import Estimate
from omrlang.schema import Rl, Sft
from omrlang.types import Checkpoint, Shape

MASTER_BYTES = 4
"""Of a parameter's fp32 weight, without which, and its two moments, a run cannot go on."""


def kept(checkpoint: Checkpoint, steps: float) -> int:
    """How many stay of those that a run of so many steps writes; after its last step it writes the model.

    >>> kept(Checkpoint(every=16, keep="all"), 1_232), kept(Checkpoint(every=16, keep=2), 1_232)
    (76, 2)
    """
    written = max(0, math.ceil(steps / checkpoint.every) - 1)
    return written if checkpoint.keep == "all" else min(checkpoint.keep, written)


def checkpoint_bytes(spec: Sft | Rl, shape: Shape) -> float:
    """One checkpoint: of what is trained."""
    if spec.adapter is not None:
        trained = adapter_params(shape, spec.adapter.rank, spec.adapter.targets)
    else:
        trained = shape.num_params - frozen_params(shape, spec.freeze)
    return max(0.0, trained) * (MASTER_BYTES + moments_bytes(spec.optimizer.moments))


def checkpoints_on_disk(spec: Sft | Rl, steps: Estimate, shape: Shape | None) -> Estimate:
    """All that stay at the same time; without the setting the run keeps one on its way."""
    checkpoint = spec.checkpoint
    if shape is None:
        return unknown("bytes", "the model's shape is not declared")
    each = exact(
        checkpoint_bytes(spec, shape),
        "bytes",
        origin_of(shape),
        "a trained parameter's fp32 weight and moments",
    )
    if checkpoint is None:
        return each
    number = derive(
        "checkpoints",
        "those written, at most `keep`",
        lambda steps: float(kept(checkpoint, steps)),
        steps=steps,
    )
    return derive(
        "bytes", "checkpoints that stay x bytes of one", product, number=number, each=each
    )
