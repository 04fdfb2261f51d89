"""A training job becomes bytes per device by part, and a verdict with the settings that would turn it.

Sources: Rajbhandari et al. (arXiv 1910.02054) for what ZeRO shards; Korthikanti et al. (arXiv 2205.05198) for activations
and recomputation. The constants beside them are fitted to prime-rl's published measurements (its ``benchmarks/baselines``),
against which ``tests/test_memory_grid.py`` holds the ranges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from omrlang.estimate import assumptions
from omrlang.estimate.ranges import added, between, derive, exact, product, unknown
from omrlang.estimate.rows import guess
from omrlang.estimate.shapes import (
    MATRICES,
    MOMENTS_8BIT,
    MOMENTS_FP32,
    adapter_params,
    frozen_params,
    inner_width,
    is_untied,
    layer_params,
    origin_of,
)
from omrlang.plan import Estimate, Memory, Verdict
from omrlang.types import Fsdp, Shape

GIB = 2.0**30
ADAPTER, RANK = "adapter = ", 16
EIGHT_BITS = "optimizer = adamw(moments = blockwise8)"
OFFLOADED = "offload = true"
IN_TURN = "behind = 0 steps"
APART = "apart"
"""An engine that rolls out on GPUs of its own."""
OTHERWISE = (ADAPTER, EIGHT_BITS, IN_TURN)
"""How the settings begin with which something else is learned, and the rank of adapters that are offered."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the memory of one training process hangs on.

    ``tokens`` are of one forward pass, of which a share ``images`` stands for images. ``zero`` is the ZeRO stage, 0 none,
    over ``processes``, or ``fsdp`` what cuts up. ``lora`` is the rank of adapters on the matrices ``targets``, 0 where the
    weights are trained, all but the parts ``frozen``. ``engine`` is what rolls out in the same place: ``engine_bytes`` are set aside for it where it is
    vLLM; with ``engine_writes`` it writes while the model learns. With ``kl`` the divergence from what training started from is weighted.
    """

    shape: Shape
    tokens: int
    processes: int = 1
    zero: int = 0
    fsdp: Fsdp | None = None
    precision: str = "bf16"
    recompute: bool = False
    fused: bool = True
    moments: float = MOMENTS_FP32
    lora: int = 0
    targets: tuple[str, ...] = MATRICES
    frozen: tuple[str, ...] = ()
    images: float = 0.0
    on_cpu: bool = False
    engine: str | None = None
    engine_bytes: float = 0.0
    engine_writes: bool = False
    kl: bool = False
    capacity: float | None = None


def measure(job: Job) -> Memory:
    """Per device, at its peak. The verdict is ``fits`` where the whole range is below what can be used of the device."""
    parts = dict(_states(job))
    if job.kl and not job.lora:
        parts["reference"] = _whole_weights(job)
    parts |= {name: part for name, part in _passing(job).items() if part.hi}
    parts["context"] = guess(
        assumptions.CPU_PROCESS_BYTES if job.on_cpu else assumptions.CONTEXT_BYTES,
        "bytes",
        "libraries, kernels and buffers before the model",
    )
    parts["fragments"] = _fragments(dict(parts))
    if job.engine not in (None, APART):
        parts |= _writing(job) if job.engine_writes else _engine(job, _passing(job))
        if job.engine != "vllm" and (job.engine_writes or job.zero == 3 or job.fsdp is not None):
            parts["engine weights"] = _whole_weights(job)
    total = added("bytes", " + ".join(parts), parts)
    return Memory(
        parts=parts,
        total=total,
        capacity_bytes=job.capacity,
        verdict=verdict(total, job.capacity),
    )


def no_shape(capacity: float | None) -> Memory:
    """Nothing can be said of a model whose shape nobody declared."""
    nothing = unknown("bytes", "the model's shape is not declared")
    return Memory(parts={}, total=nothing, capacity_bytes=capacity, verdict="unknown")


def verdict(total: Estimate, capacity: float | None) -> Verdict:
    """``uncertain`` where the range lies on both sides of what can be used."""
    if capacity is None or total.lo is None or total.hi is None:
        return "unknown"
    usable = capacity * assumptions.USABLE
    if total.hi <= usable:
        return "fits"
    return "does not fit" if total.lo > usable else "uncertain"


# ---- what stays: weights, gradients, optimiser -----------------------------------------------------------------------


def _states(job: Job) -> dict[str, Estimate]:
    """In bf16 fp32 masters stand beside the weights and count with the optimiser; gradients are summed up in fp32 and
    for a moment there in bf16 too. Of weights that stay as they are there is nothing but themselves; adapters stand beside
    them."""
    shape, whole = job.shape, job.precision == "fp32"
    trained = trained_params(job)
    if job.fsdp is not None:
        return _cut_up(job, job.fsdp, trained)
    split = [1 / job.processes if job.zero >= stage else 1.0 for stage in (3, 2, 1)]
    master = 0.0 if whole else 4.0
    gradients = (4.0, 4.0, 4.0) if whole or job.lora else (2.0, 4.0, 6.0)
    weights = exact(4.0 if whole else 2.0, "bytes", "formula", f"a parameter in {job.precision}")
    return {
        "weights": _sharded(
            shape, shape.num_params + (trained if job.lora else 0.0), weights, split[0]
        ),
        "gradients": _sharded(
            shape, trained, between(*gradients, "bytes", "assumed", "a parameter"), split[1]
        ),
        "optimiser": _sharded(
            shape,
            trained,
            exact(master + job.moments, "bytes", "formula", "a parameter: fp32 masters, moments"),
            split[2],
        ),
    }


def _cut_up(job: Job, settings: Fsdp, trained: float) -> dict[str, Estimate]:
    """Under FSDP what is trained is held in fp32 alone, of which a pass gathers its own precision; and all of it is cut up."""
    shape, whole = job.shape, job.precision == "fp32"
    on_host = settings.offload and not job.on_cpu
    share = 0.0 if on_host else 1 / job.processes
    still = shape.num_params if job.lora else shape.num_params - trained
    stays = 4.0 if whole else 2.0
    each = exact(4.0, "bytes", "formula", "a trained parameter in fp32, which is its master")
    why = "kept on the host" if on_host else "what FSDP leaves to a process"
    held = _sharded(shape, trained, each, share, why)
    if still > 0:
        beside = exact(stays, "bytes", "formula", f"a parameter that stays, in {job.precision}")
        parts = {"trained": held, "others": _sharded(shape, still, beside, share, why)}
        held = added("bytes", "trained + others", parts)
    moments = exact(job.moments, "bytes", "formula", "a parameter: moments")
    sums = exact(4.0, "bytes", "formula", "a parameter: its fp32 sum")
    return {
        "weights": held,
        "gradients": _sharded(shape, trained, sums, share, why),
        "optimiser": _sharded(shape, trained, moments, share, why),
    }


def trained_params(job: Job) -> float:
    """Parameters that have gradients."""
    if job.lora:
        return adapter_params(job.shape, job.lora, job.targets)
    return max(0.0, job.shape.num_params - frozen_params(job.shape, job.frozen))


def _sharded(
    shape: Shape,
    params: float,
    each: Estimate,
    split: float,
    why: str = "what ZeRO leaves to a process",
) -> Estimate:
    return derive(
        "bytes",
        "parameters x bytes of one x share of a process",
        product,
        parameters=exact(params, "parameters", origin_of(shape), "of the shape"),
        each=each,
        share=exact(split, "", "formula", why),
    )


# ---- what comes and goes with a pass ---------------------------------------------------------------------------------


def _passing(job: Job) -> dict[str, Estimate]:
    return {
        "gathered": _gathered(job),
        "checkpoints": _checkpoints(job),
        "layer": _layer(job),
        "vision": _vision(job),
        "logits": _logits(job),
    }


def _gathered(job: Job) -> Estimate:
    """ZeRO-3 gathers layers as they are needed, one ahead, with the embedding or head, and their gradients until they are
    sent, and so does FSDP, which can also keep them all from the forward to the backward pass; ZeRO-1 and 2 pass gradients and
    weights through buckets."""
    shape = job.shape
    if job.fsdp is not None and not job.fsdp.reshard_after_forward:
        return _standing(job)
    if job.zero == 0 and job.fsdp is None:
        return exact(0.0, "bytes", "formula", "nothing is gathered without ZeRO")
    if job.zero < 3 and job.fsdp is None:
        lo, mid, hi = (min(size, 4.0 * shape.num_params) for size in assumptions.ZERO_BUCKETS)
        return between(lo, mid, hi, "bytes", "assumed", "buckets of gradients and weights")
    layer, head = layer_params(shape) / shape.layers, float(shape.vocab * shape.hidden)
    heads = 1 + is_untied(shape)
    lo, mid, hi = ((layer + head) * 2, (2 * layer + head) * 6, (3 * layer + heads * head) * 8)
    formula = "two layers and the embedding in use: weights, and gradients until they are sent"
    return between(lo, mid, hi, "bytes", "assumed", formula)


def _standing(job: Job) -> Estimate:
    """All weights in the precision of the pass, and a layer's gradients until they are sent."""
    shape = job.shape
    layer, head = layer_params(shape) / shape.layers, float(shape.vocab * shape.hidden)
    whole = shape.num_params * (4.0 if job.precision == "fp32" else 2.0)
    lo, mid, hi = layer * 2, (layer + head) * 6, (2 * layer + (1 + is_untied(shape)) * head) * 6
    formula = (
        "all weights, whole until the backward pass has met them; gradients until they are sent"
    )
    return between(whole + lo, whole + mid, whole + hi, "bytes", "assumed", formula)


def _per_token(job: Job, width: float, spread: assumptions.Guess, formula: str) -> Estimate:
    """``width`` numbers of a token, in the precision of the pass, times what was measured of such."""
    return derive(
        "bytes",
        "tokens x width x bytes of a number x factor",
        product,
        tokens=exact(job.tokens, "tokens", "formula", "of a forward pass"),
        width=exact(width, "numbers", origin_of(job.shape), formula),
        each=exact(2.0 if job.precision == "bf16" else 4.0, "bytes", "formula", job.precision),
        factor=guess(spread, "", "measured over counted"),
    )


def _checkpoints(job: Job) -> Estimate:
    """With recomputation a layer keeps its input, without it all that its backward pass reads."""
    shape = job.shape
    if job.recompute:
        text = "layers x hidden: the input of each layer"
        return _per_token(job, shape.layers * shape.hidden, assumptions.CHECKPOINTS, text)
    text = "layers x what a layer computes inside"
    return _per_token(job, shape.layers * inner_width(shape), assumptions.KEPT, text)


def _layer(job: Job) -> Estimate:
    """The layer whose backward pass runs: its inner values once more where they are recomputed, and their gradients."""
    spread = assumptions.LAYER_AGAIN if job.recompute else assumptions.LAYER
    text = "queries, keys, values, MLP and residuals of one layer"
    return _per_token(job, inner_width(job.shape), spread, text)


def _vision(job: Job) -> Estimate:
    """The tower's blocks over the patches of the image tokens; its width is not declared and taken for 1,152. A tower that is
    not trained keeps nothing for a backward pass: one block at a time."""
    if not job.shape.vision_params:
        return exact(0.0, "bytes", "formula", "no vision tower")
    width = job.shape.vision_params / (12 * assumptions.VISION_WIDTH) * job.shape.merge**2
    if job.lora or "vision" in job.frozen:
        width = min(width, float(assumptions.VISION_WIDTH * job.shape.merge**2))
    spread = assumptions.CHECKPOINTS if job.recompute else assumptions.VISION_KEPT
    whole = _per_token(job, width, spread, "layers x width of the tower, for a token's patches")
    share = between(
        0.7 * job.images,
        job.images,
        min(1.0, 1.3 * job.images),
        "",
        "assumed",
        "image tokens of a pass",
    )
    return derive("bytes", "a pass of image tokens x share", product, whole=whole, share=share)


def _logits(job: Job) -> Estimate:
    """Whole, logits stand there in the precision of the pass, in fp32, as probabilities and as gradients."""
    count = float(job.tokens * job.shape.vocab)
    what = "all tokens x vocabulary"
    if job.fused:
        count, what = min(count, float(assumptions.LOGITS_OF_A_CHUNK)), "one chunk"
    return derive(
        "bytes",
        "logits x bytes of one",
        product,
        logits=exact(count, "logits", origin_of(job.shape), what),
        each=guess(assumptions.LOGIT_BYTES, "bytes", "value, fp32 copy, probability, gradient"),
    )


def _fragments(parts: dict[str, Estimate]) -> Estimate:
    """What the allocator holds and nobody uses."""
    whole = added("bytes", " + ".join(parts), parts)
    share = guess(assumptions.FRAGMENTS, "", "held and not in use")
    return derive("bytes", "all of it x share", product, whole=whole, share=share)


# ---- the engine beside it --------------------------------------------------------------------------------------------


def _engine(job: Job, passing: dict[str, Estimate]) -> dict[str, Estimate]:
    """vLLM takes its share of the device while it writes. If it sleeps while the model learns only what goes beyond a
    pass counts; if it stays awake all of it does."""
    learning = added("bytes", " + ".join(passing), passing)
    lo, mid = (max(0.0, job.engine_bytes - (end or 0.0)) for end in (learning.hi, learning.mid))
    formula = "the engine's share of the device beyond a pass, all of it if the engine never sleeps"
    return {
        "engine": between(lo, max(lo, mid), job.engine_bytes, "bytes", "assumed", formula)
        if job.engine == "vllm"
        else between(0.0, 0.0, job.engine_bytes, "bytes", "assumed", "cache beyond a pass")
    }


def _writing(job: Job) -> dict[str, Estimate]:
    """An engine that writes while the model learns: all that it has counts."""
    if job.engine == "vllm":
        share = exact(job.engine_bytes, "bytes", "formula", "the engine's share, weights among it")
        return {"engine": share}
    whole = job.engine_bytes
    cache = between(
        0.25 * whole, 0.5 * whole, whole, "bytes", "assumed", "cache of what is written"
    )
    return {"engine": cache}


def _whole_weights(job: Job) -> Estimate:
    """The model once more, which no sharding cuts up: what `transformers` draws with where the trainer's weights are cut up or change
    meanwhile, or the reference of a divergence."""
    return derive(
        "bytes",
        "parameters x bytes of one: every process has them whole",
        product,
        parameters=exact(job.shape.num_params, "parameters", origin_of(job.shape), "of the shape"),
        each=exact(4.0 if job.precision == "fp32" else 2.0, "bytes", "formula", job.precision),
    )


def flips(job: Job, found: Memory) -> tuple[str, ...]:
    """Single settings that would change the verdict, each with the peak it gives and by how much it moves: out of a bad
    verdict, or into one. Last come those with which something else is
    learned."""
    bad, peak = found.verdict != "fits", found.total.mid or 0.0
    options: list[tuple[float, str]] = []
    for text, other in _alternatives(job).items():
        measured = measure(other)
        mid = measured.total.mid or 0.0
        if measured.verdict != found.verdict and (mid < peak) == bad:
            moved = f"{'+' if mid > peak else '-'}{abs(mid - peak) / GIB:,.1f}"
            options.append((mid, f"{text}: {mid / GIB:,.1f} GiB ({moved}), {measured.verdict}"))
    ordered = [text for _, text in sorted(options, reverse=not bad)]
    ordered.sort(key=lambda text: OFFLOADED in text)  # it takes the least, and the longest
    others = [text for text in ordered if not text.startswith(OTHERWISE)]
    return (*others[:3], *(text for text in ordered if text.startswith(OTHERWISE)))


def _alternatives(job: Job) -> dict[str, Job]:
    """The same job with one memory setting another way."""
    options = {
        f"recompute = {str(not job.recompute).lower()}": replace(job, recompute=not job.recompute)
    }
    options |= _cut_otherwise(job) if job.processes > 1 else {}
    adapted = replace(job, lora=0) if job.lora else replace(job, lora=RANK, frozen=())
    text = "none" if job.lora else f"lora(rank = {RANK}, alpha = {2 * RANK})"
    options[f"{ADAPTER}{text}"] = adapted
    if not job.zero and job.moments == MOMENTS_FP32:
        options[EIGHT_BITS] = replace(job, moments=MOMENTS_8BIT)
    if job.engine_writes and job.engine != APART:
        options[IN_TURN] = replace(job, engine_writes=False)
    if job.engine is None:
        fused = str(not job.fused).lower()
        options[f"cross_entropy(fused = {fused})"] = replace(job, fused=not job.fused)
        options[f"pack = {job.tokens // 2:_}"] = replace(job, tokens=max(8, job.tokens // 2))
    if job.engine == "vllm" and job.capacity and not job.on_cpu:
        for share in (0.3, 0.5):
            if 2.0 * job.shape.num_params < share * job.capacity < job.engine_bytes:
                name = f"engine = vllm(gpu_memory = {share})"
                options[name] = replace(job, engine_bytes=share * job.capacity)
    return options


def _cut_otherwise(job: Job) -> dict[str, Job]:
    """Another sharding of the same library, or none; and, where there is a host beside the device, the host."""
    found: dict[str, Job] = {}
    now = job.fsdp or Fsdp()
    if job.fsdp is not None:
        found["sharding = none"] = replace(job, fsdp=None)
        others = [now.model_copy(update={"reshard_after_forward": not now.reshard_after_forward})]
    else:
        for zero in {0, 2, 3} - {job.zero}:
            name = f"sharding = {f'zero({zero})' if zero else 'none'}"
            found[name] = replace(job, zero=zero)
        others = []
    if not job.on_cpu and job.moments == MOMENTS_FP32:
        others.append(now.model_copy(update={"offload": not now.offload}))
    return found | {f"sharding = {said(one)}": replace(job, zero=0, fsdp=one) for one in others}


def said(settings: Fsdp) -> str:
    """As a recipe writes it.

    >>> said(Fsdp(offload=True)), said(Fsdp())
    ('fsdp(offload = true)', 'fsdp()')
    """
    parts = [
        *(["reshard_after_forward = false"] if not settings.reshard_after_forward else []),
        *([OFFLOADED] if settings.offload else []),
    ]
    return f"fsdp({', '.join(parts)})"
