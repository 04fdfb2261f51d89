"""Tokens and a model's shape become seconds: training by FLOPs, sampling by a roofline, on GPUs or on a CPU.

FLOPs count causal attention at the length of a document, the vision tower apart. Sources: Kaplan et al.
(arXiv 2001.08361) for 6N, Pope et al. (arXiv 2211.05102) for the decoding roofline.
"""

from __future__ import annotations

from omrlang.estimate import assumptions
from omrlang.estimate.memory import on_cpu
from omrlang.estimate.ranges import derive, exact, unknown
from omrlang.estimate.rows import guess
from omrlang.estimate.shapes import kv_bytes_per_token, text_params
from omrlang.plan import Estimate
from omrlang.schema import Rl, Sft
from omrlang.settle import num_devices
from omrlang.types import Gpu, Hardware, Shape

NO_SHAPE = unknown("s", "the model's shape is not declared")


def start_seconds(kind: str) -> Estimate:
    """A process of the stage until its first row."""
    return guess(assumptions.START_S[kind], "s", f"start of a process ({kind})")


def train_flops_per_token(shape: Shape, length: float) -> float:
    """Forward and backward of one token of a document of that length: 6 N + 6 L d s. Recomputation is no model FLOP.

    >>> qwen = Shape(num_params=8_292_000_000, layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128,
    ...              vocab=152_064, intermediate=18_944, vision_params=677_000_000)
    >>> round(train_flops_per_token(qwen, 8192) / 1e9, 1)
    47.4
    """
    dense = 6.0 * text_params(shape)
    attention = 6.0 * shape.layers * shape.heads * shape.head_dim * length
    return dense + attention


def vision_flops_per_token(shape: Shape) -> float:
    """Forward of the vision tower for one image token: its patches go through the blocks."""
    return 2.0 * shape.vision_params * shape.merge**2


def train_seconds(
    spec: Sft | Rl, shape: Shape | None, tokens: Estimate, length: Estimate, visual_share: Estimate
) -> Estimate:
    """Time of forward and backward passes over ``tokens``, of documents of ``length``, of which a share are image tokens."""
    if shape is None:
        return NO_SHAPE
    vision = 3.0 * vision_flops_per_token(shape)

    def flops(tokens: float, length: float, visual: float) -> float:
        return tokens * (train_flops_per_token(shape, length) + visual * vision)

    work = derive(
        "FLOPs",
        "tokens x (6 N + 6 L d s + vision)",
        flops,
        tokens=tokens,
        length=length,
        visual=visual_share,
    )
    if on_cpu(spec):
        return _cpu_train(spec, work)
    return _gpu_train(spec, shape, work)


def _cpu_train(spec: Sft | Rl, work: Estimate) -> Estimate:
    rate = guess(
        assumptions.CPU_TRAIN_FLOPS[spec.precision], "FLOP/s", f"{spec.precision} on two cores"
    )
    again = 4 / 3 if spec.recompute else 1.0
    return derive(
        "s",
        "FLOPs / rate of this machine's processor",
        lambda work, rate: work * again / rate,
        falling=["rate"],
        work=work,
        rate=rate,
    )


def _gpu_train(spec: Sft | Rl, shape: Shape, work: Estimate) -> Estimate:
    hardware = spec.hardware
    assert hardware is not None, "a stage on GPUs names its hardware"
    assert hardware.gpu is not None, "a stage on GPUs names its hardware"
    peak = exact(
        hardware.gpu.tflops * 1e12 * hardware.count,
        "FLOP/s",
        "declared",
        f"{hardware.count} x {hardware.gpu.name}",
    )
    small = shape.num_params < 1e9
    values = (
        assumptions.MFU_SMALL
        if small
        else assumptions.MFU_RL
        if isinstance(spec, Rl)
        else assumptions.MFU_SFT
    )
    used = guess(values, "", "model FLOPs utilisation, causal convention")
    return derive(
        "s",
        "FLOPs / (peak x utilisation)",
        lambda work, peak, used: work / (peak * used),
        falling=["peak", "used"],
        work=work,
        peak=peak,
        used=used,
    )


def overhead_seconds(passes: Estimate) -> Estimate:
    """What each forward and backward pass costs beside its FLOPs on a CPU."""
    each = guess(assumptions.CPU_TRAIN_OVERHEAD_S, "s", "one pass of a small model")
    return derive(
        "s", "passes x fixed time", lambda passes, each: passes * each, passes=passes, each=each
    )


def sample_seconds(
    shape: Shape | None,
    hardware: Hardware | None,
    engine: str,
    prompts: Estimate,
    responses: Estimate,
    context: Estimate,
) -> Estimate:
    """Time to write ``responses`` tokens after reading ``prompts`` tokens, at a mean context of so many tokens."""
    if shape is None:
        return NO_SHAPE
    if hardware is None or hardware.gpu is None:
        return _cpu_sample(shape, engine, prompts, responses)
    return _gpu_sample(shape, hardware, hardware.gpu, prompts, responses, context)


def _cpu_sample(shape: Shape, engine: str, prompts: Estimate, responses: Estimate) -> Estimate:
    """A step writes one token for each of 64 sequences; its time is fixed cost plus 2 N a token."""
    width = 64.0
    flops = guess(assumptions.CPU_DECODE_FLOPS[engine], "FLOP/s", f"{engine} on two cores")
    step = guess(assumptions.CPU_DECODE_STEP_S, "s", "fixed time of a step")
    per_token = 2.0 * text_params(shape)

    def seconds(prompts: float, responses: float, flops: float, step: float) -> float:
        return responses / width * step + (responses + 0.25 * prompts) * per_token / flops

    return derive(
        "s",
        "steps x (fixed + 2 N tokens / rate)",
        seconds,
        falling=["flops"],
        prompts=prompts,
        responses=responses,
        flops=flops,
        step=step,
    )


def _gpu_sample(
    shape: Shape,
    hardware: Hardware,
    gpu: Gpu,
    prompts: Estimate,
    responses: Estimate,
    context: Estimate,
) -> Estimate:
    """Decoding is bound by reading weights and cache, or by 2 N a token; prefill by 2 N at training's utilisation."""
    weights, kv = 2.0 * shape.num_params, kv_bytes_per_token(shape)
    devices = _devices_a_replica(weights, gpu)
    replicas = max(1, hardware.count // devices)
    active = 2.0 * text_params(shape)
    bandwidth, peak = gpu.bandwidth_tb_s * 1e12 * devices, gpu.tflops * 1e12 * devices
    room = max(0.0, 0.9 * gpu.memory_gib * 2**30 * devices - weights)

    def seconds(
        prompts: float, responses: float, context: float, reach: float, fixed: float, mix: float
    ) -> float:
        width = max(1.0, min(256.0, room / (kv * max(context, 1.0))))
        step = (
            max(
                (weights + width * context * kv) / (bandwidth * reach),
                active * width / (peak * 0.5),
            )
            + fixed
        )
        return (responses / width * step / mix + prompts * active / (peak * 0.5)) / replicas

    return derive(
        "s",
        "tokens / width x max((weights + cache) / bandwidth, 2 N width / peak) + prefill",
        seconds,
        falling=["reach", "mix"],
        prompts=prompts,
        responses=responses,
        context=context,
        reach=guess(assumptions.DECODE_BANDWIDTH, "", "share of the bandwidth"),
        fixed=guess(assumptions.DECODE_STEP_S, "s", "fixed time of a step"),
        mix=guess(assumptions.DECODE_MIX, "", "what prefill and ragged ends leave"),
    )


def _devices_a_replica(weights: float, gpu: Gpu) -> int:
    """The smallest power of two of devices whose memory holds the weights twice over, cache included."""
    devices = 1
    while weights > 0.55 * devices * gpu.memory_gib * 2**30 and devices < 1024:
        devices *= 2
    return devices


def tail_seconds(shape: Shape, hardware: Hardware | None, longest: Estimate) -> Estimate:
    """The longest answer of a batch, alone at its end: tokens one after another, bound by reading the weights."""
    if hardware is None or hardware.gpu is None:
        step = guess(assumptions.CPU_DECODE_STEP_S, "s", "fixed time of a step")
        return derive(
            "s",
            "longest x one step",
            lambda longest, step: longest * step,
            longest=longest,
            step=step,
        )
    weights, gpu = 2.0 * shape.num_params, hardware.gpu
    each = weights / (gpu.bandwidth_tb_s * 1e12 * _devices_a_replica(weights, gpu))
    reach = guess(assumptions.DECODE_BANDWIDTH, "", "share of the bandwidth")
    fixed = guess(assumptions.DECODE_STEP_S, "s", "fixed time of a step")

    def seconds(longest: float, reach: float, fixed: float) -> float:
        return longest * (each / reach + fixed)

    return derive(
        "s",
        "longest x (weights / bandwidth + fixed)",
        seconds,
        falling=["reach"],
        longest=longest,
        reach=reach,
        fixed=fixed,
    )


def gpu_hours(seconds: Estimate, hardware: Hardware | None) -> Estimate:
    """Devices times hours; zero without a GPU."""
    if hardware is None or hardware.gpu is None:
        return exact(0, "GPU-hours", "formula", "no GPU")
    count = hardware.count
    return derive(
        "GPU-hours",
        f"{count} devices x hours",
        lambda seconds: seconds * count / 3600,
        seconds=seconds,
    )


def passes(spec: Sft | Rl, tokens: Estimate, per_pass: int) -> Estimate:
    """Forward and backward passes of all processes, one after another in each."""
    count = per_pass * num_devices(spec)
    return derive(
        "passes", "tokens / tokens of one pass", lambda tokens: tokens / count, tokens=tokens
    )
