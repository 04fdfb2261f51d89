"""A specification becomes one in which derived values stand in the place of what they were derived from."""

from __future__ import annotations

from typing import assert_never

from omrlang.schema import Eval, Rl, Sft, Spec
from omrlang.schema.sft import Training
from omrlang.schema.stage import StageSpec
from omrlang.types import (
    Algorithm,
    Amount,
    Call,
    Continue,
    Dapo,
    DrGrpo,
    Drop,
    Engine,
    Hardware,
    LrSchedule,
    OnSpread,
    RowExpr,
    Rule,
    Transformers,
    Vllm,
    construct,
)

ANSWER_MATCHES = construct(Call, fn="answer_matches")
SHARED_BATCH = 512
"""Sequences that an `rl` decodes at once with the trainer's own weights, unless the recipe says otherwise."""

DEFAULT_SCORE = construct(
    RowExpr,
    text="answer_matches",
    type="bool",
    tree=ANSWER_MATCHES,
    rules=(construct(Rule, name="answer_matches", tree=ANSWER_MATCHES),),
)
"""What an ``eval`` without ``score`` counts as right."""


RL_PASS = 8_192
"""Tokens of rollouts in one forward pass where ``micro_batch`` does not say, if the longest rollout is shorter."""


def pass_tokens(spec: Sft | Rl) -> int:
    """Tokens of one forward pass at most: ``micro_batch`` where it is set, else a pack, or rollouts until it is full."""
    match spec:
        case Sft():
            return max(spec.pack, spec.micro_batch or 0)
        case Rl():
            longest = spec.max_prompt + spec.max_response
            return max(longest, spec.micro_batch or RL_PASS)
        case _:
            assert_never(spec)


def engine_apart(spec: StageSpec) -> Vllm | None:
    """The engine of rollouts that has a process, and GPUs, of its own beside each process that trains."""
    engine = spec.engine if isinstance(spec, Rl) else None
    return engine if isinstance(engine, Vllm) and engine.apart else None


def gpus_a_process(spec: StageSpec) -> int:
    """GPUs for each process that trains: its own, and those of the engine that draws for it apart."""
    engine = engine_apart(spec)
    return 1 if engine is None else 1 + engine.tensor_parallel


def drawing_hardware(spec: Rl) -> Hardware | None:
    """The machines that draw rollouts: those that train too, or of their GPUs those that engines apart have for themselves."""
    engine, hardware = engine_apart(spec), spec.hardware
    if engine is None or hardware is None or hardware.gpu is None:
        return hardware
    return hardware.model_copy(update={"count": num_devices(spec) * engine.tensor_parallel})


def has_reference(spec: Rl) -> bool:
    """Whether rollouts are scored by what training started from too. Where the weight of the divergence is unpublished nobody knows."""
    return spec.algorithm.kl > 0 and "algorithm.kl" not in spec.unpublished


def drawing_engine(spec: Rl, kind: str) -> Engine | None:
    """What draws rollouts, as far as it is set; the trainer's own weights, where the recipe says nothing else."""
    if spec.engine is None and kind == "transformers":
        return Transformers(batch=SHARED_BATCH)
    return spec.engine


def gpus_of_an_engine(spec: Rl) -> int | None:
    """Over how many GPUs an engine apart is spread; None where none is."""
    engine = engine_apart(spec)
    return None if engine is None else engine.tensor_parallel


def num_devices(spec: Training) -> int:
    """How many processes train: one a GPU that no engine has for itself, or ``processes`` on a machine without one."""
    if spec.hardware is None:
        return spec.processes
    return (
        max(1, spec.hardware.count // gpus_a_process(spec))
        if spec.hardware.gpu is not None
        else max(spec.hardware.count, spec.processes)
    )


def settled_amount(amount: Amount, devices: int) -> Amount:
    """``1 pack / gpu`` on 32 devices is 32 packs."""
    unit, per, _ = amount.unit.partition(" / ")
    return construct(Amount, value=amount.value * devices, unit=unit) if per else amount


def settle(spec: Spec) -> Spec:
    """The stage with derived values in the place of what they were derived from, and defaults that hang on others."""
    match spec:
        case Sft():
            batch = settled_amount(spec.batch, num_devices(spec))
            values = {
                "batch": batch,
                "lr": _settled_lr(spec.lr, spec.steps),
                **_what_is_trained(spec),
            }
            return spec.model_copy(update=values)
        case Rl():
            batch = settled_amount(spec.batch, num_devices(spec))
            minibatch = (
                settled_amount(spec.minibatch, num_devices(spec)) if spec.minibatch else batch
            )
            values = {
                "batch": batch,
                "minibatch": minibatch,
                "lr": _settled_lr(spec.lr, spec.steps),
                "algorithm": _settled_algorithm(spec, batch),
                **_settled_oversample(spec),
                **_what_is_trained(spec),
            }
            return spec.model_copy(update=values)
        case Eval() if spec.score is None:
            return spec.model_copy(update={"score": DEFAULT_SCORE})
        case _:
            return spec


def updates_per_batch(spec: Rl) -> float:
    """Optimiser steps on the rollouts of one batch."""
    devices = num_devices(spec)
    batch = settled_amount(spec.batch, devices).value
    mini = settled_amount(spec.minibatch, devices).value if spec.minibatch else batch
    return max(1.0, batch / mini)


def beyond_batch(spec: Rl) -> float:
    """Prompts that are under way besides those of a batch, over all processes."""
    more = spec.oversample
    return settled_amount(more, num_devices(spec)).value if more is not None else 0.0


def continues(spec: Rl) -> bool:
    """Whether rollouts that a step leaves unfinished are drawn on in the next."""
    return spec.oversample is not None and not isinstance(spec.unfinished, Drop)


def prompts_asked(spec: Rl) -> float:
    """Prompts that a step takes from the stream, over all processes, once as many are under way as may be: what is dropped has
    been asked too."""
    batch = settled_amount(spec.batch, num_devices(spec)).value
    return batch if continues(spec) else batch + beyond_batch(spec)


def draws_older(spec: Rl) -> bool:
    """Whether what a step learns from was drawn, if only in part, by the policy of an earlier step."""
    return spec.behind > 0 or continues(spec)


def ratio_to_engine(spec: Rl) -> bool:
    """Whether importance ratios are taken to the older policy that drew, as its engine recorded it; else to the trainer's own
    when the step began."""
    return draws_older(spec) and spec.rollout_correction is None


def ratio_is_one(spec: Rl) -> bool:
    """Whether no importance ratio ever differs from 1, so that nothing is clipped."""
    return updates_per_batch(spec) == 1 and not ratio_to_engine(spec)


def response_norm(spec: Rl) -> int:
    """What Dr. GRPO divides the sum over a response by: the longest that a response can be, unless the recipe says otherwise."""
    length = spec.algorithm.length if isinstance(spec.algorithm, DrGrpo) else None
    return length or spec.max_response


def _what_is_trained(spec: Sft | Rl) -> dict[str, object]:
    """Lists of names whose order says nothing, in order."""
    adapter = spec.adapter
    if adapter is not None:
        adapter = adapter.model_copy(update={"targets": tuple(sorted(adapter.targets))})
    return {"adapter": adapter, "freeze": tuple(sorted(spec.freeze))}


def _settled_algorithm(spec: Rl, batch: Amount) -> Algorithm:
    """A round of `refill` that does not say how many prompts it has is as large as the batch, Dr. GRPO's constant as large as
    the longest response."""
    algorithm = spec.algorithm
    match algorithm:
        case DrGrpo():
            return algorithm.model_copy(update={"length": response_norm(spec)})
        case Dapo(refill=OnSpread(generate=None) as refill):
            settled = refill.model_copy(update={"generate": batch})
            return algorithm.model_copy(update={"refill": settled})
        case _:
            return algorithm


def _settled_oversample(spec: Rl) -> dict[str, object]:
    if spec.oversample is None:
        return {}
    more = settled_amount(spec.oversample, num_devices(spec))
    return {"oversample": more, "unfinished": spec.unfinished or construct(Continue)}


def _settled_lr(lr: LrSchedule, steps: int | None) -> LrSchedule:
    """A warm-up given as a fraction of a known number of steps is a number of steps, where it comes out whole."""
    if lr.warmup.value == 0:
        return lr.model_copy(update={"warmup": construct(Amount, value=0.0, unit="steps")})
    if lr.warmup.unit != "fraction" or steps is None:
        return lr
    warmup = round(lr.warmup.value * steps, 9)
    if warmup != int(warmup):
        return lr
    return lr.model_copy(update={"warmup": construct(Amount, value=warmup, unit="steps")})
