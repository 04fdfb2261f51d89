"""What an optimiser, a loss and an algorithm of reinforcement learning are set to."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.amounts import Amount
from omrlang.types.setting import Frozen, Setting

Warmup: TypeAlias = Annotated[
    Amount,
    Setting(doc="`25 steps` or `10%` of the steps", cls="weights", units=("steps", "fraction")),
]


class Constant(Frozen):
    """Linear warm-up to ``peak``, then flat. ``warmup`` is ``Amount`` in ``steps`` or ``fraction``."""

    kind: Literal["constant"] = "constant"
    peak: float
    warmup: Warmup = Amount(value=0, unit="steps")


class Cosine(Frozen):
    """Linear warm-up to ``peak``, then half a cosine to ``floor * peak`` at the last step."""

    kind: Literal["cosine"] = "cosine"
    peak: float
    warmup: Warmup = Amount(value=0, unit="steps")
    floor: float = 0.0


class Linear(Frozen):
    """Linear warm-up to ``peak``, then a line to 0 at the last step."""

    kind: Literal["linear"] = "linear"
    peak: float
    warmup: Warmup = Amount(value=0, unit="steps")


LrSchedule: TypeAlias = Annotated[Constant | Cosine | Linear, Field(discriminator="kind")]


class CrossEntropy(Frozen):
    """``fused``: logits are made in chunks and never stand whole in memory (same result)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    fused: bool = True


class AdamW(Frozen):
    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


class Gspo(Frozen):
    """Group sequence policy optimisation (arXiv 2507.18071): length-normalised sequence ratio. ``clip`` is [low, high]."""

    kind: Literal["gspo"] = "gspo"
    clip: tuple[float, float]
    kl: float = 0.0
    mean: Literal["sequence", "token"] = "sequence"


class Grpo(Frozen):
    """Group relative policy optimisation (arXiv 2402.03300): token ratios. ``clip`` is [low, high]."""

    kind: Literal["grpo"] = "grpo"
    clip: tuple[float, float]
    kl: float = 0.0
    mean: Literal["sequence", "token"] = "sequence"


class Overlong(Frozen):
    """DAPO's soft overlong penalty (arXiv 2503.14476, eq. 13); ``buffer`` in tokens."""

    kind: Literal["soft"] = "soft"
    buffer: Annotated[int, Setting("tokens before the limit", cls="weights", unit="tokens", ge=1)]
    factor: float = 1.0


class Dapo(Frozen):
    """DAPO (arXiv 2503.14476): decoupled clip, token mean over the global batch; groups without spread are left out."""

    kind: Literal["dapo"] = "dapo"
    clip: tuple[float, float]
    kl: float = 0.0
    mean: Literal["sequence", "token"] = "token"
    overlong: Overlong | None = None


Algorithm: TypeAlias = Annotated[Gspo | Grpo | Dapo, Field(discriminator="kind")]


class Zero(Frozen):
    """DeepSpeed ZeRO: ``stage`` 1 shards the optimiser, 2 the gradients too, 3 the weights too."""

    kind: Literal["zero"] = "zero"
    stage: Annotated[
        int, Setting("1 optimiser, 2 gradients too, 3 weights too", cls="speed", ge=1, le=3)
    ]


class Checkpoint(Frozen):
    """``every`` steps; ``keep`` newest stay."""

    every: Annotated[int, Setting("how often", cls="speed", unit="steps", ge=1)]
    keep: Annotated[int, Setting("newest that stay", cls="speed", ge=1)] = 1
