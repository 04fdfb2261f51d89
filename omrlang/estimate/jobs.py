"""An ``sft`` or ``rl`` stage becomes the job whose memory is estimated."""

from __future__ import annotations

import os

from omrlang.estimate import assumptions
from omrlang.estimate.memory import APART, GIB, Job, flips, measure, no_shape, verdict
from omrlang.estimate.ranges import added, derive, exact, setting
from omrlang.estimate.rows import guess
from omrlang.estimate.shapes import MATRICES, kv_bytes_per_token, moments_bytes, origin_of
from omrlang.plan import Estimate, Memory, Verdict
from omrlang.schema import Rl, Sft
from omrlang.settle import (
    SHARED_BATCH,
    beyond_batch,
    drawing_hardware,
    engine_apart,
    has_reference,
    num_devices,
    pass_tokens,
    settled_amount,
)
from omrlang.state import Record
from omrlang.types import Dapo, Fsdp, Shape, Transformers, Vllm, Zero

CPU_CACHE_BYTES = 2 * GIB
"""What vLLM is given for keys and values on a CPU."""


def memory(spec: Sft | Rl, shape: Shape | None, images: Estimate, engine: str | None) -> Memory:
    """Per device at its peak, with the settings that would turn the verdict; ``engine`` rolls out beside an ``rl``."""
    if shape is None:
        return no_shape(capacity(spec))
    job = job_of(spec, shape, images, engine)
    found = measure(job)
    return found.model_copy(update={"flips": flips(job, found)})


def with_measured(found: Memory, record: Record | None) -> Memory:
    """With the peak of the stage's own run in the place of the sum."""
    if record is None or record.peak_bytes is None:
        return found
    return with_peak(
        found, exact(record.peak_bytes, "bytes", "measured", "peak of the stage's run")
    )


def with_peak(found: Memory, total: Estimate) -> Memory:
    """With a peak that was measured in the place of the sum."""
    judged = verdict(total, found.capacity_bytes)
    return found.model_copy(update={"total": total, "verdict": judged, "flips": ()})


def job_of(spec: Sft | Rl, shape: Shape, images: Estimate, engine: str | None) -> Job:
    """The stage's settings, as far as memory hangs on them."""
    return Job(
        shape=shape,
        tokens=pass_tokens(spec),
        processes=num_devices(spec),
        zero=spec.sharding.stage if isinstance(spec.sharding, Zero) else 0,
        fsdp=spec.sharding if isinstance(spec.sharding, Fsdp) else None,
        precision=spec.precision,
        recompute=spec.recompute,
        moments=moments_bytes(spec.optimizer.moments),
        lora=spec.adapter.rank if spec.adapter is not None else 0,
        targets=spec.adapter.targets if spec.adapter is not None else MATRICES,
        frozen=spec.freeze,
        fused=spec.loss.fused if isinstance(spec, Sft) else True,
        images=images.mid or 0.0,
        on_cpu=on_cpu(spec),
        engine=_engine_beside(spec, engine),
        engine_bytes=_engine_bytes(spec, shape, engine) if isinstance(spec, Rl) else 0.0,
        engine_writes=isinstance(spec, Rl) and spec.behind > 0,
        kl=isinstance(spec, Rl) and has_reference(spec),
        capacity=capacity(spec),
    )


def _engine_beside(spec: Sft | Rl, engine: str | None) -> str | None:
    """What rolls out in the memory that the trainer has; an engine apart is there only on a machine without a GPU."""
    if not isinstance(spec, Rl):
        return None
    return APART if drawing_hardware(spec) != spec.hardware else engine


def _engine_bytes(spec: Rl, shape: Shape, engine: str | None) -> float:
    """vLLM's share of a GPU; on a CPU its own weights and cache. In process the sequences that are written at once."""
    weights = 2.0 * shape.num_params
    if drawing_hardware(spec) != spec.hardware:
        return 0.0
    if engine == "vllm":
        share = spec.engine.gpu_memory if isinstance(spec.engine, Vllm) else Vllm().gpu_memory
        limit = capacity(spec)
        return weights + CPU_CACHE_BYTES if on_cpu(spec) or limit is None else share * limit
    prompts = settled_amount(spec.batch, num_devices(spec)).value + beyond_batch(spec)
    if isinstance(spec.algorithm, Dapo) and spec.algorithm.refill is not None:
        generate = spec.algorithm.refill.generate
        prompts = max(prompts, generate.value if generate is not None else prompts)
    batch = spec.engine.batch if isinstance(spec.engine, Transformers) else SHARED_BATCH
    at_once = min(prompts * spec.group / num_devices(spec), batch)
    return at_once * kv_bytes_per_token(shape) * (spec.max_prompt + spec.max_response)


def engine_needs(spec: Rl, shape: Shape) -> Memory | None:
    """Of each GPU of an engine apart what it cannot do without, of the share that it may take; None where it has none."""
    engine, hardware = engine_apart(spec), drawing_hardware(spec)
    if engine is None or hardware is None or hardware.gpu is None:
        return None
    devices = setting(engine.tensor_parallel, "GPUs", "tensor_parallel")
    size = exact(2.0 * shape.num_params, "bytes", origin_of(shape), "weights in bf16")
    longest = (spec.max_prompt + spec.max_response) * kv_bytes_per_token(shape)
    cache = exact(longest, "bytes", origin_of(shape), "keys and values of one longest rollout")
    parts = {
        name: derive(
            "bytes",
            f"{name} / devices of the engine",
            lambda whole, devices: whole / devices,
            falling=["devices"],
            whole=whole,
            devices=devices,
        )
        for name, whole in {"weights": size, "cache": cache}.items()
    }
    parts["fixed"] = guess(assumptions.ENGINE_FIXED, "bytes", "values of a step, graphs, libraries")
    total, limit = added("bytes", " + ".join(parts), parts), engine.gpu_memory * hardware.gpu.memory_gib * GIB  # fmt: skip
    return Memory(parts=parts, total=total, capacity_bytes=limit, verdict=_within(total, limit))


def with_engine_apart(found: Memory, apart: Memory) -> Memory:
    """The trainer's peak, with the verdict of its engine where that is the worse; other settings of the trainer change nothing
    then."""
    order = ("fits", "unknown", "uncertain", "does not fit")
    if order.index(apart.verdict) <= order.index(found.verdict):
        return found
    return found.model_copy(update={"verdict": apart.verdict, "flips": ()})


def of_engine_apart(apart: Memory) -> dict[str, Estimate]:
    """What a plan shows of it: what it needs and what it may take."""
    limit = apart.capacity_bytes or 0.0
    share = exact(limit, "bytes", "formula", "gpu_memory x memory of a GPU")
    return {"engine_apart": apart.total, "engine_share": share}


def _within(total: Estimate, limit: float) -> Verdict:
    """Of a share that nothing else uses; vLLM itself leaves the rest."""
    if total.lo is None or total.hi is None:
        return "unknown"
    if total.hi <= limit:
        return "fits"
    return "does not fit" if total.lo > limit else "uncertain"


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
