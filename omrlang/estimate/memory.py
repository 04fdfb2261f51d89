"""A training stage's shape becomes bytes per device by part, and a verdict with the settings that would turn it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, assert_never

from omrlang.estimate import assumptions
from omrlang.estimate.ranges import added, between, unknown
from omrlang.estimate.rows import guess
from omrlang.estimate.shapes import kv_bytes_per_token, mlp_width, origin_of
from omrlang.plan import Estimate, Memory
from omrlang.schema import Rl, Sft
from omrlang.settle import num_devices, settled_amount
from omrlang.types import Shape, Zero

GIB = 2.0**30


def memory(spec: Sft | Rl, shape: Shape | None) -> Memory:
    """Per device, at its peak: states + activations + logits + context (in RL also the engine)."""
    if shape is None:
        nothing = unknown("bytes", "the model's shape is not declared")
        return Memory(parts={}, total=nothing, capacity_bytes=capacity(spec), verdict="unknown")
    found = _measure(spec, shape)
    return found.model_copy(update={"flips": _flips(spec, shape, found)})


def _measure(spec: Sft | Rl, shape: Shape) -> Memory:
    parts = _parts(spec, shape)
    total = added("bytes", "sum of the parts", parts)
    limit = capacity(spec)
    return Memory(parts=parts, total=total, capacity_bytes=limit, verdict=_verdict(total, limit))


def _parts(spec: Sft | Rl, shape: Shape) -> dict[str, Estimate]:
    context = assumptions.CPU_PROCESS_BYTES if on_cpu(spec) else assumptions.CONTEXT_BYTES
    tokens = pass_tokens(spec)
    parts = {
        "states": _states(spec, shape),
        "activations": _activations(spec, shape, tokens),
        "logits": _logits(spec, shape, tokens),
        "context": guess(context, "bytes", "libraries and buffers"),
    }
    if isinstance(spec, Rl):
        parts["engine"] = between(
            2.0 * shape.num_params,
            2.0 * shape.num_params,
            2.4 * shape.num_params,
            "bytes",
            origin_of(shape),
            "its weights in bf16",
        )
        parts["cache"] = _cache(
            spec, shape, (parts["activations"].mid or 0.0) + (parts["logits"].mid or 0.0)
        )
    return parts


def on_cpu(spec: Sft | Rl) -> bool:
    return spec.hardware is None or spec.hardware.gpu is None


def capacity(spec: Sft | Rl) -> float | None:
    """Bytes of a device; without a GPU this machine's memory, shared by its processes."""
    if spec.hardware is not None and spec.hardware.gpu is not None:
        return spec.hardware.gpu.memory_gib * GIB
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / num_devices(spec)
    except (OSError, ValueError):
        return None


def _verdict(
    total: Estimate, limit: float | None
) -> Literal["fits", "uncertain", "does not fit", "unknown"]:
    if limit is None or total.lo is None or total.hi is None:
        return "unknown"
    usable = limit * assumptions.USABLE
    if total.hi <= usable:
        return "fits"
    return "does not fit" if total.lo > usable else "uncertain"


def _states(spec: Sft | Rl, shape: Shape) -> Estimate:
    """Weights and gradients in the compute precision, fp32 master weights and two Adam moments; ZeRO shards them."""
    compute = 2.0 if spec.precision == "bf16" else 0.0
    sharded_weights, gradients, optimiser = compute, compute or 4.0, 12.0
    n = num_devices(spec)
    stage = spec.sharding.stage if spec.sharding is not None else 0
    per_param = (
        sharded_weights / (n if stage >= 3 else 1)
        + gradients / (n if stage >= 2 else 1)
        + optimiser / (n if stage >= 1 else 1)
    )  # fmt: skip
    value = per_param * shape.num_params
    formula = f"{per_param:.3g} bytes a parameter (weights, gradients, fp32 master, Adam) x {shape.num_params:,} parameters"
    return between(value, value, value * 1.1, "bytes", origin_of(shape), formula)


def pass_tokens(spec: Sft | Rl) -> int:
    """Tokens of one forward pass: ``micro_batch`` where it is set, else a pack, else the longest rollout."""
    match spec:
        case Sft():
            return max(spec.pack, spec.micro_batch or 0)
        case Rl():
            return max(spec.max_prompt + spec.max_response, spec.micro_batch or 0)
        case _:
            assert_never(spec)


def _activations(spec: Sft | Rl, shape: Shape, tokens: int) -> Estimate:
    """Without recomputation all layers' inner values, with it one checkpoint a layer and one layer's inner values."""
    width = 2.0 if spec.precision == "bf16" else 4.0
    inner = 6 * shape.hidden + 2 * shape.kv_heads * shape.head_dim + 4 * mlp_width(shape)
    per_token = (
        width * (shape.layers * shape.hidden + inner)
        if spec.recompute
        else width * shape.layers * inner
    )
    mode = (
        "one checkpoint a layer and one layer" if spec.recompute else "every layer's inner values"
    )
    value = per_token * tokens
    return between(
        value * 0.7,
        value,
        value * 1.5,
        "bytes",
        origin_of(shape),
        f"{mode}: {per_token:,.0f} bytes a token x {tokens:,} tokens",
    )


def _logits(spec: Sft | Rl, shape: Shape, tokens: int) -> Estimate:
    fused = spec.loss.fused if isinstance(spec, Sft) else True
    count, per_logit = (min(tokens, assumptions.LOGIT_CHUNK), 8.0) if fused else (tokens, 10.0)
    value = count * shape.vocab * per_logit
    text = "fused: one chunk of" if fused else "not fused: all"
    return between(
        value * 0.8,
        value,
        value * 1.5,
        "bytes",
        origin_of(shape),
        f"{text} {count:,} tokens x {shape.vocab:,} logits x {per_logit:.0f} bytes",
    )


def _cache(spec: Rl, shape: Shape, training: float) -> Estimate:
    """Keys and values while rollouts are written, beyond what training takes at other times in the same place."""
    each = kv_bytes_per_token(shape) * (spec.max_prompt + spec.max_response)
    rollouts = settled_amount(spec.batch, num_devices(spec)).value * spec.group / num_devices(spec)
    lo, mid, hi = (max(0.0, each * min(rollouts, count) - training) for count in (1, 16, 64))
    return between(
        lo,
        mid,
        hi,
        "bytes",
        "assumed",
        "cache of 1 .. 64 sequences at full length, beyond activations and logits",
    )


def _flips(spec: Sft | Rl, shape: Shape, found: Memory) -> tuple[str, ...]:
    """Single settings that would change the verdict, each with the peak it gives: out of a bad one, or into one."""
    bad = found.verdict != "fits"
    peak = found.total.mid or 0.0
    options: list[tuple[float, str]] = []
    for text, other in _alternatives(spec).items():
        measured = _measure(other, shape)
        mid = measured.total.mid or 0.0
        if measured.verdict != found.verdict and (mid < peak) == bad:
            options.append((mid, f"{text}: {mid / GIB:,.1f} GiB, {measured.verdict}"))
    return tuple(text for _, text in sorted(options, reverse=not bad)[:3])


def _alternatives(spec: Sft | Rl) -> Mapping[str, Sft | Rl]:
    """The same stage with one memory setting another way."""
    options: dict[str, Sft | Rl] = {
        "recompute = " + str(not spec.recompute).lower(): spec.model_copy(
            update={"recompute": not spec.recompute}
        )
    }
    if num_devices(spec) > 1:
        stage = spec.sharding.stage if spec.sharding is not None else 0
        for other in {0, 3} - {stage}:
            sharding = Zero(stage=other) if other else None
            options[f"sharding = {f'zero({other})' if other else 'none'}"] = spec.model_copy(
                update={"sharding": sharding}
            )
    if isinstance(spec, Sft):
        fused = not spec.loss.fused
        options[f"cross_entropy(fused = {str(fused).lower()})"] = spec.model_copy(
            update={"loss": spec.loss.model_copy(update={"fused": fused})}
        )
        options[f"pack = {spec.pack // 2:_}"] = spec.model_copy(
            update={"pack": max(8, spec.pack // 2)}
        )
    return options
