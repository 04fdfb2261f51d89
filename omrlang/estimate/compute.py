"""Tokens and a model's shape become seconds: training by FLOPs, sampling by a roofline, on GPUs or on a CPU.

FLOPs count causal attention at the length of a document, the vision tower apart. Sources: Kaplan et al.
(arXiv 2001.08361) for 6N, Pope et al. (arXiv 2211.05102) for the decoding roofline.
"""

from __future__ import annotations

from omrlang.estimate import assumptions
from omrlang.estimate.jobs import on_cpu
from omrlang.estimate.ranges import (
    added,
    derive,
    derive_from,
    exact,
    product,
    ratio,
    setting,
    unknown,
)
from omrlang.estimate.rows import guess
from omrlang.estimate.shapes import (
    adapter_params,
    kv_bytes_per_token,
    origin_of,
    text_params,
)
from omrlang.flops import passes_a_parameter, passes_of_attention, passes_of_tower
from omrlang.plan import Estimate
from omrlang.schema import Rl, Sft
from omrlang.settle import engine_apart, num_devices
from omrlang.types import VLLM_AT_ONCE, Engine, Gpu, Hardware, Shape, Transformers, Vllm

NO_SHAPE = unknown("s", "the model's shape is not declared")


def start_seconds(kind: str) -> Estimate:
    """A process of the stage until its first row."""
    return guess(assumptions.START_S[kind], "s", f"start of a process ({kind})")


def seconds_at(rows: Estimate, rate: Estimate) -> Estimate:
    """Time of rows through a program."""
    return derive(
        "s",
        "rows / rows a second",
        lambda rows, rate: rows / rate,
        falling=["rate"],
        rows=rows,
        rate=rate,
    )


def of_shape(shape: Shape, value: float, unit: str, formula: str) -> Estimate:
    """A number that follows from a model's shape, as good as the shape."""
    return exact(value, unit, origin_of(shape), formula)


# ---- training --------------------------------------------------------------------------------------------------------


def train_flops_per_token(shape: Shape, length: float) -> float:
    """Forward and backward of one token of a document of that length: 6 N + 6 L d s. Recomputation is no model FLOP.

    >>> qwen = Shape(num_params=8_292_000_000, layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128,
    ...              vocab=152_064, intermediate=18_944, vision_params=677_000_000)
    >>> round(train_flops_per_token(qwen, 8192) / 1e9, 1)
    47.4
    """
    return 6.0 * text_params(shape) + 6.0 * _attention_width(shape) * length


def _attention_width(shape: Shape) -> float:
    return float(shape.layers * shape.heads * shape.head_dim)


def vision_flops_per_token(shape: Shape) -> float:
    """Forward of the vision tower for one image token: its patches go through the blocks."""
    return 2.0 * shape.vision_params * shape.merge**2


def train_seconds(
    spec: Sft | Rl, shape: Shape | None, tokens: Estimate, length: Estimate, visual_share: Estimate
) -> Estimate:
    """Time of forward and backward passes over ``tokens``, of documents of ``length``, of which a share are image tokens."""
    if shape is None:
        return NO_SHAPE
    text, tower_passes = _text_flops(spec, shape, tokens, length), passes_of_tower(spec)
    tower = derive(
        "FLOPs",
        f"{tower_passes:g} tokens x image_share x V",
        lambda tokens, image_share, V: tower_passes * tokens * image_share * V,
        tokens=tokens,
        image_share=visual_share,
        V=of_shape(shape, vision_flops_per_token(shape), "FLOPs", "the tower for an image token"),
    )
    parts = {"text": text} if tower.hi == 0 else {"text": text, "tower": tower}
    if on_cpu(spec):
        return _cpu_train(spec, added("FLOPs", " + ".join(parts), parts))
    timed = {name: _gpu_train(spec, shape, name, part) for name, part in parts.items()}
    return added("s", " + ".join(timed), timed) if len(timed) > 1 else timed["text"]


def _text_flops(spec: Sft | Rl, shape: Shape, tokens: Estimate, length: Estimate) -> Estimate:
    """Of the text model: what is trained of it and what is not, and the adapters."""
    each = passes_a_parameter(spec)
    attention = passes_of_attention(spec)
    inputs = {
        "tokens": tokens,
        "N": of_shape(shape, text_params(shape), "parameters", "that a text token goes through"),
        "Ld": of_shape(shape, _attention_width(shape), "", "layers x heads x width of a head"),
        "s": length,
    }
    formula = f"{each:g} N + {attention:g} L d s"
    if spec.adapter is not None:
        own = adapter_params(shape, spec.adapter.rank, spec.adapter.targets)
        inputs["A"] = of_shape(shape, own, "parameters", "of the adapters")
        formula += " + 6 A"
    return derive_from(
        "FLOPs",
        f"tokens x ({formula})",
        lambda tokens, N, Ld, s, A=0.0: tokens * (each * N + attention * Ld * s + 6 * A),
        inputs,
    )


def _cpu_train(spec: Sft | Rl, work: Estimate) -> Estimate:
    """Here a second forward pass is paid for apart: the rate is of what the processor does."""
    rate = guess(
        assumptions.CPU_TRAIN_FLOPS[spec.precision], "FLOP/s", f"{spec.precision} on two cores"
    )
    each = passes_a_parameter(spec)
    more = f"{each + 2:g}/{each:g} with `recompute`" if each != 6 else "4/3 with `recompute`"
    again = exact((each + 2) / each if spec.recompute else 1.0, "", "formula", more)
    return derive(
        "s",
        "FLOPs x again / rate of this machine's processor",
        lambda FLOPs, again, rate: FLOPs * again / rate,
        falling=["rate"],
        FLOPs=work,
        again=again,
        rate=rate,
    )


def _gpu_train(spec: Sft | Rl, shape: Shape, part: str, work: Estimate) -> Estimate:
    hardware = spec.hardware
    assert hardware is not None, "a stage on GPUs names its hardware"
    assert hardware.gpu is not None, "a stage on GPUs names its hardware"
    values = assumptions.MFU_RL if isinstance(spec, Rl) else assumptions.MFU_SFT
    if part == "tower":
        values = assumptions.MFU_TOWER
    elif shape.experts:
        values = assumptions.MFU_EXPERTS
    elif shape.num_params < 1e9:
        values = assumptions.MFU_SMALL
    return derive(
        "s",
        "FLOPs / (GPUs x peak x utilisation)",
        lambda FLOPs, GPUs, peak, utilisation: FLOPs / (GPUs * peak * utilisation),
        falling=["GPUs", "peak", "utilisation"],
        FLOPs=work,
        GPUs=_training_gpus(spec, hardware),
        peak=exact(
            hardware.gpu.tflops * 1e12, "FLOP/s", "declared", f"{hardware.gpu.name}, dense bf16"
        ),
        utilisation=guess(values, "", f"model FLOPs utilisation of the {part}, causal convention"),
    )


def _training_gpus(spec: Sft | Rl, hardware: Hardware) -> Estimate:
    """All, but for those that engines apart have."""
    if engine_apart(spec) is None:
        return setting(hardware.count, "GPUs", hardware.name)
    what = f"of {hardware.count} of {hardware.name}: the others draw"
    return exact(num_devices(spec), "GPUs", "formula", what)


def overhead_seconds(passes: Estimate) -> Estimate:
    """What each forward and backward pass costs beside its FLOPs on a CPU."""
    each = guess(assumptions.CPU_TRAIN_OVERHEAD_S, "s", "one pass of a small model")
    return derive("s", "passes x fixed time", product, passes=passes, each=each)


def passes(spec: Sft | Rl, tokens: Estimate, per_pass: int) -> Estimate:
    """Forward and backward passes of all processes, one after another in each."""
    return derive(
        "passes",
        "tokens / (processes x tokens of one pass)",
        lambda tokens, processes, one: tokens / (processes * one),
        falling=["processes", "one"],
        tokens=tokens,
        processes=exact(num_devices(spec), "", "formula", "that train"),
        one=exact(per_pass, "tokens", "formula", "tokens of one pass"),
    )


# ---- sampling --------------------------------------------------------------------------------------------------------

CPU_AT_ONCE = 64
"""Sequences that vLLM decodes at once on a CPU, unless it is told otherwise."""


def sample_seconds(
    shape: Shape | None,
    hardware: Hardware | None,
    engine: str,
    prompts: Estimate,
    responses: Estimate,
    context: Estimate,
    split: int | None = None,
    settings: Engine | None = None,
) -> Estimate:
    """Time to write ``responses`` tokens after reading ``prompts`` tokens, at a mean context of so many tokens. ``split`` is
    over how many devices an engine is spread, where that is not to be guessed; of its ``settings`` those of memory and of sequences at once count."""
    if shape is None:
        return NO_SHAPE
    if settings is None and engine == "transformers":
        settings = Transformers()
    vllm = settings if isinstance(settings, Vllm) else Vllm()
    most = settings.batch if isinstance(settings, Transformers) else vllm.max_num_seqs
    if hardware is None or hardware.gpu is None:
        return _cpu_sample(shape, engine, most or CPU_AT_ONCE, prompts, responses)
    if split is None and vllm.tensor_parallel > 1:
        split = vllm.tensor_parallel
    devices = split or gpus_of_a_replica(shape, hardware, hardware.gpu)
    rate = _decode_rate(
        shape, hardware.gpu, devices, vllm.gpu_memory, most or VLLM_AT_ONCE, context
    )
    return _gpu_sample(shape, hardware, hardware.gpu, devices, rate, prompts, responses)


def _cpu_sample(
    shape: Shape, engine: str, width: int, prompts: Estimate, responses: Estimate
) -> Estimate:
    """A step writes one token for each of ``width`` sequences; its time is fixed cost plus 2 N a token."""

    def seconds(
        prompts: float, responses: float, N: float, width: float, rate: float, fixed: float
    ) -> float:
        return responses / width * fixed + (responses + 0.25 * prompts) * 2 * N / rate

    return derive(
        "s",
        "responses / width x fixed + (responses + prompts / 4) x 2 N / rate",
        seconds,
        falling=["rate", "width"],
        prompts=prompts,
        responses=responses,
        N=of_shape(shape, text_params(shape), "parameters", "that a text token goes through"),
        width=exact(width, "sequences", "formula", "decoded at once"),
        rate=guess(assumptions.CPU_DECODE_FLOPS[engine], "FLOP/s", f"{engine} on two cores"),
        fixed=guess(assumptions.CPU_DECODE_STEP_S, "s", "fixed time of a step"),
    )


def _gpu_sample(
    shape: Shape,
    hardware: Hardware,
    gpu: Gpu,
    devices: int,
    rate: Estimate,
    prompts: Estimate,
    responses: Estimate,
) -> Estimate:
    """Engines decode side by side; ``mix`` is what prefill between steps and ragged ends leave of a full engine's rate."""
    split = f"{hardware.count} {gpu.name}, {devices} an engine"
    return derive(
        "s",
        "(responses / (rate x mix) + prefill) / engines",
        lambda responses, rate, mix, prefill, engines: (
            (responses / (rate * mix) + prefill) / engines
        ),
        falling=["rate", "mix", "engines"],
        responses=responses,
        rate=rate,
        mix=guess(assumptions.DECODE_MIX, "", "what prefill and ragged ends leave"),
        prefill=_prefill_seconds(shape, gpu, devices, prompts),
        engines=exact(max(1, hardware.count // devices), "", "formula", split),
    )


def _decode_rate(
    shape: Shape, gpu: Gpu, devices: int, share: float, most: int, context: Estimate
) -> Estimate:
    """Tokens a second of one full engine. As many sequences are decoded at once as their cache has room for in its share of the
    memory, at most ``most``; a step is bound by reading the weights and the cache, or by 2 N a token at half the peak."""

    def rate(
        room: float, cache: float, context: float, weights: float, bandwidth: float,
        reach: float, N: float, peak: float, fixed: float,
    ) -> float:  # fmt: skip
        width = max(1.0, min(float(most), room / (cache * max(context, 1.0))))
        read = (weights + width * context * cache) / (bandwidth * reach)
        return width / (max(read, 2 * N * width / (peak / 2)) + fixed)

    weights = 2.0 * shape.num_params
    free = share * gpu.memory_gib * 2**30 - assumptions.ENGINE_BYTES
    room = max(0.0, free * devices - weights)
    return derive(
        "tokens/s",
        f"width / (max((weights + width x context x cache) / (bandwidth x reach), 2 N width / (peak / 2)) + fixed),"
        f" width = min({most}, room / (context x cache))",
        rate,
        falling=["context", "cache", "weights", "N", "fixed"],
        room=exact(
            room,
            "bytes",
            "formula",
            f"{share:.0%} of {devices} {gpu.name}, less the weights and 4 GB each",
        ),
        weights=of_shape(shape, weights, "bytes", "in bf16, all of them read in a step"),
        context=context,
        **_step_inputs(shape, gpu, devices),
    )


def _step_inputs(shape: Shape, gpu: Gpu, devices: int) -> dict[str, Estimate]:
    """What the time of any decoding step hangs on."""
    machine = f"{devices} x {gpu.name}"
    return {
        "cache": of_shape(shape, kv_bytes_per_token(shape), "bytes", "keys, values of a token"),
        "bandwidth": exact(gpu.bandwidth_tb_s * 1e12 * devices, "B/s", "declared", machine),
        "reach": guess(assumptions.DECODE_BANDWIDTH, "", "share of the bandwidth"),
        "N": of_shape(shape, text_params(shape), "parameters", "that a text token goes through"),
        "peak": exact(gpu.tflops * 1e12 * devices, "FLOP/s", "declared", machine),
        "fixed": _fixed_seconds(shape, devices),
    }


def _fixed_seconds(shape: Shape, devices: int) -> Estimate:
    """Of a step, whatever it computes; over several devices each layer sums up twice among them."""
    fixed = guess(assumptions.DECODE_STEP_S, "s", "fixed time of a step")
    if devices == 1:
        return fixed
    return derive(
        "s",
        "fixed + 2 x layers x one sum over the devices",
        lambda fixed, layers, each: fixed + 2 * layers * each,
        fixed=fixed,
        layers=of_shape(shape, shape.layers, "layers", "of the shape"),
        each=guess(assumptions.ALL_REDUCE_S, "s", f"a sum over {devices} devices"),
    )


def _prefill_seconds(shape: Shape, gpu: Gpu, devices: int, prompts: Estimate) -> Estimate:
    return derive(
        "s",
        "prompts x 2 N / (peak / 2)",
        lambda prompts, N, peak: prompts * 2 * N / (peak / 2),
        falling=["peak"],
        prompts=prompts,
        N=of_shape(shape, text_params(shape), "parameters", "that a text token goes through"),
        peak=exact(gpu.tflops * 1e12 * devices, "FLOP/s", "declared", f"{devices} x {gpu.name}"),
    )


def gpus_of_a_replica(shape: Shape, hardware: Hardware, gpu: Gpu) -> int:
    """The smallest power of two of devices whose memory holds the weights twice over, cache included, if there are so many."""
    devices = 1
    memory = gpu.memory_gib * 2**30
    while 2.0 * shape.num_params > 0.55 * devices * memory and 2 * devices <= hardware.count:
        devices *= 2
    return devices


def tail_seconds(
    shape: Shape, hardware: Hardware | None, longest: Estimate, split: int | None = None
) -> Estimate:
    """The longest answer of a batch, alone at its end: tokens one after another, bound by reading the weights."""
    if hardware is None or hardware.gpu is None:
        step = guess(assumptions.CPU_DECODE_STEP_S, "s", "fixed time of a step")
        return derive("s", "longest x one step", product, longest=longest, step=step)
    devices = split or gpus_of_a_replica(shape, hardware, hardware.gpu)
    inputs = _step_inputs(shape, hardware.gpu, devices)
    return derive(
        "s",
        "longest x ((2 N + longest / 2 x cache) / (bandwidth x reach) + fixed)",
        lambda longest, N, cache, bandwidth, reach, fixed: (
            longest * ((2 * N + longest / 2 * cache) / (bandwidth * reach) + fixed)
        ),
        falling=["bandwidth", "reach"],
        longest=longest,
        **{name: inputs[name] for name in ("N", "cache", "bandwidth", "reach", "fixed")},
    )


def gpu_hours(seconds: Estimate, hardware: Hardware | None) -> Estimate:
    """Devices times hours; zero without a GPU."""
    if hardware is None or hardware.gpu is None:
        return exact(0, "GPU-hours", "formula", "no GPU")
    hours = ratio("hours", "seconds / 3600", seconds, exact(3600, "s", "formula", "an hour"))
    count = setting(hardware.count, "GPUs", hardware.name)
    return derive("GPU-hours", "GPUs x hours", product, GPUs=count, hours=hours)
