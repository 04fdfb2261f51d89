"""What an optimiser, a loss and an algorithm of reinforcement learning are set to."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

from omrlang.types.amounts import Amount
from omrlang.types.rows import RowExpr, RowSets
from omrlang.types.setting import Frozen, Setting, construct

Warmup: TypeAlias = Annotated[
    Amount,
    Setting(doc="`25 steps` or `10%` of the steps", cls="weights", units=("steps", "fraction")),
]


class Constant(Frozen):
    """Linear warm-up to ``peak``, then flat. ``warmup`` is ``Amount`` in ``steps`` or ``fraction``."""

    kind: Literal["constant"] = "constant"
    peak: Annotated[float, Setting("learning rate after the warm-up", cls="weights", ge=0)]
    warmup: Warmup = construct(Amount, value=0.0, unit="steps")


class Cosine(Frozen):
    """Linear warm-up to ``peak``, then half a cosine to ``floor * peak`` at the last step."""

    kind: Literal["cosine"] = "cosine"
    peak: Annotated[float, Setting("learning rate after the warm-up", cls="weights", ge=0)]
    warmup: Warmup = construct(Amount, value=0.0, unit="steps")
    floor: Annotated[
        float,
        Setting("share of the peak that is left at the last step", cls="weights", ge=0, le=1),
    ] = 0.0


class Linear(Frozen):
    """Linear warm-up to ``peak``, then a line to 0 at the last step."""

    kind: Literal["linear"] = "linear"
    peak: Annotated[float, Setting("learning rate after the warm-up", cls="weights", ge=0)]
    warmup: Warmup = construct(Amount, value=0.0, unit="steps")


LrSchedule: TypeAlias = Annotated[Constant | Cosine | Linear, Field(discriminator="kind")]


class CrossEntropy(Frozen):
    """``fused``: logits are made in chunks and never stand whole in memory (same result)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    fused: Annotated[bool, Setting("logits in chunks, never whole in memory", cls="speed")] = True


class AdamW(Frozen):
    kind: Literal["adamw"] = "adamw"
    betas: Annotated[
        tuple[float, float], Setting("decay of the two moments", cls="weights", ge=0, lt=1)
    ] = (0.9, 0.999)
    eps: Annotated[float, Setting("added to the denominator", cls="weights", gt=0)] = 1e-8
    weight_decay: Annotated[
        float, Setting("decoupled decay of the weights", cls="weights", ge=0)
    ] = 0.0
    moments: Annotated[
        Literal["fp32", "blockwise8"],
        Setting(
            "what the two moments are kept in; blockwise8 is 8 bits each with a scale for every 256 (arXiv 2110.02861), by bitsandbytes",
            cls="weights",
        ),
    ] = "fp32"


DualClip: TypeAlias = Annotated[
    float | None,
    Setting(
        "the most that a ratio counts where the advantage is negative; none is no such bound",
        cls="weights",
        gt=1,
    ),
]

KlEstimator: TypeAlias = Annotated[
    Literal["k1", "k2", "k3"],
    Setting(
        "how the divergence is estimated from drawn tokens: k1 log p/q, k2 half its square, k3 q/p - 1 - log q/p",
        cls="weights",
    ),
]
Entropy: TypeAlias = Annotated[
    float,
    Setting("weight of the entropy, a bonus for a policy that stays open", cls="weights", ge=0),
]


class Clipped(Frozen):
    """What every algorithm of a clipped ratio has; its ``kind`` comes first, as a diff tells it. ``clip`` is [low, high]."""

    kind: str
    clip: Annotated[
        tuple[float, float],
        Setting(
            "how far below and above 1 a sequence's or token's ratio counts", cls="weights", ge=0
        ),
    ]
    kl: Annotated[
        float, Setting("weight of the divergence from the starting model", cls="weights", ge=0)
    ] = 0.0


class Averaged(Clipped):
    """Of those the ones whose loss is a mean over sequences or tokens."""

    mean: Annotated[
        Literal["sequence", "token"], Setting("over what the loss is averaged", cls="weights")
    ] = "sequence"
    dual_clip: DualClip = None
    kl_estimator: KlEstimator = "k3"
    entropy: Entropy = 0.0


class Gspo(Averaged):
    """Group sequence policy optimisation (arXiv 2507.18071): length-normalised sequence ratio. ``clip`` is [low, high]."""

    kind: Literal["gspo"] = "gspo"


class Grpo(Averaged):
    """Group relative policy optimisation (arXiv 2402.03300): token ratios. ``clip`` is [low, high]."""

    kind: Literal["grpo"] = "grpo"


class DrGrpo(Clipped):
    """Dr. GRPO (arXiv 2503.20783): GRPO without its two biases. Advantages are not divided by the standard deviation of
    their group, so prompts that are almost always or never solved weigh no more than others; and every response's sum is divided
    by one constant, so a wrong answer is not let off for being long. ``clip`` is [low, high]."""

    kind: Literal["dr_grpo"] = "dr_grpo"
    dual_clip: DualClip = None
    kl_estimator: KlEstimator = "k3"
    entropy: Entropy = 0.0
    length: Annotated[
        int | None,
        Setting(
            "what the sum over a response is divided by; default `max_response`",
            cls="weights",
            unit="tokens",
            ge=1,
        ),
    ] = None


class Overlong(Frozen):
    """DAPO's soft overlong penalty (arXiv 2503.14476, eq. 13); ``buffer`` in tokens."""

    kind: Literal["soft"] = "soft"
    buffer: Annotated[int, Setting("tokens before the limit", cls="weights", unit="tokens", ge=1)]
    factor: Annotated[float, Setting("penalty at the limit", cls="weights", ge=0)] = 1.0


class OnSpread(Frozen):
    """DAPO's dynamic sampling (arXiv 2503.14476, section 3.2, eq. 11): groups whose rollouts all have the same reward are
    replaced by those of further prompts, until the batch is full. A step that is not full after its last round ends the
    run; ten rounds are what the authors' script allows (verl, ``max_num_gen_batches``)."""

    kind: Literal["on_spread"] = "on_spread"
    of: Annotated[
        Literal["reward", "shaped_reward"],
        Setting("what must differ: `reward` as set, or with the penalty of `overlong`", "weights"),
    ]
    generate: Annotated[
        Amount | None,
        Setting("prompts of one round; default the batch", "weights", units=("prompts",), ge=1),
    ] = None
    rounds: Annotated[int, Setting("at most so many in one step", cls="weights", ge=1)] = 10


class Dapo(Averaged):
    """DAPO (arXiv 2503.14476): decoupled clip, token mean over the global batch; groups without spread are left out, and
    with ``refill`` replaced."""

    kind: Literal["dapo"] = "dapo"
    mean: Annotated[
        Literal["sequence", "token"], Setting("over what the loss is averaged", cls="weights")
    ] = "token"
    refill: Annotated[
        OnSpread | None,
        Setting("what takes the place of groups that teach nothing", cls="weights"),
    ] = None
    overlong: Annotated[
        Overlong | None, Setting("the penalty for responses near the limit", cls="weights")
    ] = None


Algorithm: TypeAlias = Annotated[Gspo | Grpo | DrGrpo | Dapo, Field(discriminator="kind")]


class TokenTruncated(Frozen):
    """For an engine that draws with other probabilities than the trainer computes from the same weights: each token's term
    counts min(p / q, cap) times, p the trainer's and q the engine's probability of it (truncated importance sampling; F. Yao et
    al., "Your efficient RL framework secretly brings you off-policy RL training", 2025; verl's `rollout_is`)."""

    kind: Literal["token_truncated"] = "token_truncated"
    cap: Annotated[float, Setting("the most that a token counts", cls="weights", gt=0)] = 2.0


class Continue(Frozen):
    """What is under way when a step has its batch goes on in the next one, drawn on with the new weights: a partial rollout (Kimi
    k1.5, arXiv 2501.12599, section 2.6.2)."""

    kind: Literal["continue"] = "continue"
    steps: Annotated[
        int,
        Setting(
            "a step waits for groups that were begun so many steps before: at most one more weights draw a rollout",
            cls="weights",
            ge=1,
        ),
    ] = 4


class Drop(Frozen):
    """What is under way when a step has its batch is thrown away, and recorded as left out."""

    kind: Literal["drop"] = "drop"


Unfinished: TypeAlias = Annotated[Continue | Drop, Field(discriminator="kind")]


Matrix: TypeAlias = Literal[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
]
"""The matrices of a language model's layer, as transformers calls them."""


class Lora(Frozen):
    """Low-rank adapters (LoRA, arXiv 2106.09685): beside each matrix W of the language model's layers a product of two thin
    ones is trained, W + alpha / rank * B A, and W stays as it is. Of the saved model the product is a part of W; the
    adapter itself lies beside it in `adapter/`, as peft loads it."""

    kind: Literal["lora"] = "lora"
    rank: Annotated[int, Setting("columns of B and rows of A", cls="weights", ge=1)]
    alpha: Annotated[float, Setting("alpha / rank is what B A counts", cls="weights", gt=0)]
    targets: Annotated[
        tuple[Matrix, ...], Setting("which matrices of a layer; default all", cls="weights")
    ] = get_args(Matrix)
    dropout: Annotated[
        float,
        Setting(
            "share of what an adapter is given that an update leaves out", cls="weights", ge=0, lt=1
        ),
    ] = 0.0


Part: TypeAlias = Literal["vision", "projector", "language", "embeddings", "head"]
"""The parts that a model is cut into: the vision tower, what joins it to the text model, the layers of the text model with
their norms, the input embeddings, the output layer. Where embeddings and output layer are one matrix, either name is both."""


class Zero(Frozen):
    """DeepSpeed ZeRO: ``stage`` 1 shards the optimiser, 2 the gradients too, 3 the weights too."""

    kind: Literal["zero"] = "zero"
    stage: Annotated[
        int, Setting("1 optimiser, 2 gradients too, 3 weights too", cls="speed", ge=1, le=3)
    ]

    @property
    def cuts_weights(self) -> bool:
        """Whether a process holds no whole weights between passes."""
        return self.stage == 3


class Fsdp(Frozen):
    """PyTorch's FSDP2 (`torch.distributed.fsdp.fully_shard`): weights, gradients and optimiser are cut up among
    the processes, layer by layer. What is trained is held in fp32 and gathered in the precision of the pass."""

    kind: Literal["fsdp"] = "fsdp"
    reshard_after_forward: Annotated[
        bool,
        Setting(
            "true: a layer's weights are gathered for its forward and again for its backward pass, as under ZeRO-3; "
            "false: they stay whole from the one to the other, as under ZeRO-2",
            cls="speed",
        ),
    ] = True
    offload: Annotated[
        bool,
        Setting(
            "weights, gradients and optimiser are kept in the host's memory, where the optimiser steps too",
            cls="speed",
        ),
    ] = False

    @property
    def cuts_weights(self) -> bool:
        """Whether a process holds no whole weights between passes."""
        return True


Sharding: TypeAlias = Annotated[Zero | Fsdp, Field(discriminator="kind")]


class Checkpoint(Frozen):
    """``every`` steps; the ``keep`` newest stay. The trained model is the newest of all: when the stage is done, one fewer
    stays beside it."""

    every: Annotated[int, Setting("how often", cls="speed", unit="steps", ge=1)]
    keep: Annotated[
        int | Literal["all"],
        Setting(
            "newest that stay, the trained model counted; all is every one",
            cls="speed",
            ge=1,
        ),
    ] = 1


class Watch(Frozen):
    """Validation while a policy is trained: before the first step and after every ``every`` steps the rows of ``from`` are
    answered by the weights of that moment, scored as an ``eval`` scores, and the figures kept beside the step's. It takes
    time and changes nothing else, so its class is ``speed``: adding it to a finished stage runs nothing again."""

    every: Annotated[int, Setting("how often", cls="speed", unit="steps", ge=1)]
    rows: Annotated[
        RowSets, Setting("benchmarks or rows that are not trained on", cls="speed", key="from")
    ]
    n: Annotated[int, Setting("answers for each row, averaged", cls="speed", ge=1)] = 1
    temperature: Annotated[float, Setting("of the answers; 0 is greedy", cls="speed", ge=0)] = 0.0
    top_p: Annotated[float, Setting("of the answers", cls="speed", gt=0, le=1)] = 1.0
    top_k: Annotated[int | None, Setting("of the answers; none is all", cls="speed", ge=1)] = None
    max_tokens: Annotated[
        int | None,
        Setting("longest answer; default `max_response`", cls="speed", unit="tokens", ge=1),
    ] = None
    score: Annotated[
        RowExpr | None,
        Setting(
            "what counts as right, a predicate or a number in 0 .. 1; default answer_matches",
            cls="speed",
        ),
    ] = None
