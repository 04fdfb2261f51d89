"""``sft NAME from ROWS with MODEL on HARDWARE { … }``: supervised fine-tuning, the cold start."""

from __future__ import annotations

from typing import Annotated, Literal

from omrlang.schema.stage import StageSpec
from omrlang.types import (
    AdamW,
    Amount,
    Checkpoint,
    Clause,
    CrossEntropy,
    Hardware,
    Lora,
    LrSchedule,
    ModelRef,
    Part,
    Prompt,
    Setting,
    Sharding,
    construct,
)


class Training(StageSpec):
    """What every loop that makes a model has."""

    model: Annotated[ModelRef, Clause("with", "weights", "the model to start from")]
    hardware: Annotated[Hardware | None, Clause("on", "speed", "default this machine")] = None

    steps: Annotated[
        int | None,
        Setting(cls="weights", unit="steps", ge=1, one_of="length", doc="optimiser steps"),
    ] = None
    epochs: Annotated[
        float | None,
        Setting(cls="weights", unit="epochs", gt=0, one_of="length", doc="passes over the rows"),
    ] = None
    lr: Annotated[
        LrSchedule,
        Setting(
            cls="weights",
            doc="constant(peak), cosine(peak) or linear(peak), with warmup in steps or %",
        ),
    ]
    optimizer: Annotated[
        AdamW, Setting(cls="weights", doc="adamw(betas, eps, weight_decay, moments)")
    ] = construct(AdamW)
    adapter: Annotated[
        Lora | None,
        Setting(
            cls="weights",
            doc="lora(rank, alpha): adapters are trained, all weights of the model stay; none trains the model itself",
        ),
    ] = None
    freeze: Annotated[
        tuple[Part, ...],
        Setting(
            cls="weights",
            doc="parts of the model that are not trained, such as `[vision, projector]`; with `adapter` all are",
        ),
    ] = ()
    max_grad_norm: Annotated[
        float, Setting(cls="weights", gt=0, doc="the gradient is scaled down to this norm")
    ] = 1.0
    precision: Annotated[
        Literal["bf16", "fp32"],
        Setting(
            cls="weights",
            doc="what the forward and backward pass compute in; master weights are fp32",
        ),
    ] = "bf16"
    sharding: Annotated[
        Sharding | None,
        Setting(
            cls="speed",
            doc="zero(1 | 2 | 3): DeepSpeed ZeRO, or fsdp(): PyTorch FSDP2; none is plain data parallel",
        ),
    ] = None
    processes: Annotated[
        int,
        Setting(
            cls="speed",
            ge=1,
            doc="training processes on a machine without a GPU; on GPUs one a GPU",
        ),
    ] = 1
    micro_batch: Annotated[
        int | None,
        Setting(
            cls="speed",
            unit="tokens",
            ge=1,
            doc="tokens of one forward pass; default chosen by the plan",
        ),
    ] = None
    recompute: Annotated[
        bool, Setting(cls="speed", doc="recompute activations in the backward pass")
    ] = False
    checkpoint: Annotated[
        Checkpoint | None,
        Setting(
            cls="speed",
            doc="`checkpoint { every = 100 steps, keep = 2 | all }`; none is one a tenth of the run, at least 10 steps apart",
        ),
    ] = None


class Sft(Training):
    kind: Literal["sft"] = "sft"

    rows: Annotated[str, Clause("from", "weights", "rows with responses")]
    prompt: Annotated[
        Prompt | None,
        Setting(
            cls="weights",
            doc="renders thinking and answer; default the one prompt that the rows were sampled under",
        ),
    ] = None
    pack: Annotated[
        int,
        Setting(
            cls="weights",
            unit="tokens",
            ge=8,
            doc="tokens of one packed sequence; longer rows are dropped with a reason",
        ),
    ]
    batch: Annotated[
        Amount,
        Setting(
            cls="weights",
            units=("packs", "packs / gpu", "rows"),
            ge=1,
            doc="`32 packs`, `1 pack / gpu` or `16 rows` an optimiser step",
        ),
    ]
    loss: Annotated[
        CrossEntropy,
        Setting(
            cls="weights", doc="cross_entropy(fused): mean over all response tokens of the batch"
        ),
    ] = construct(CrossEntropy)
    min_pixels: Annotated[
        int | None,
        Setting(cls="weights", unit="pixels", ge=1, doc="smaller images are enlarged to this area"),
    ] = None
    max_pixels: Annotated[
        int | None,
        Setting(cls="weights", unit="pixels", ge=1, doc="larger images are shrunk to this area"),
    ] = None
