"""An ``sft`` or ``rl`` stage becomes the job whose memory is estimated."""

from __future__ import annotations

import os

from omrlang.estimate.memory import GIB, Job, flips, measure, no_shape, verdict
from omrlang.estimate.ranges import exact
from omrlang.estimate.shapes import MATRICES, kv_bytes_per_token, moments_bytes
from omrlang.plan import Estimate, Memory
from omrlang.schema import Rl, Sft
from omrlang.settle import num_devices, pass_tokens, settled_amount
from omrlang.state import Record
from omrlang.types import Fsdp, Shape, Vllm, Zero

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
        engine=engine if isinstance(spec, Rl) else None,
        engine_bytes=_engine_bytes(spec, shape, engine) if isinstance(spec, Rl) else 0.0,
        engine_writes=isinstance(spec, Rl) and spec.behind > 0,
        capacity=capacity(spec),
    )


def _engine_bytes(spec: Rl, shape: Shape, engine: str | None) -> float:
    """vLLM's share of a GPU; on a CPU its own weights and cache. In process the sequences that are written at once."""
    weights = 2.0 * shape.num_params
    if engine == "vllm":
        share = spec.engine.gpu_memory if isinstance(spec.engine, Vllm) else Vllm().gpu_memory
        limit = capacity(spec)
        return weights + CPU_CACHE_BYTES if on_cpu(spec) or limit is None else share * limit
    rollouts = settled_amount(spec.batch, num_devices(spec)).value * spec.group / num_devices(spec)
    at_once = min(rollouts, getattr(spec.engine, "batch", 64))
    return at_once * kv_bytes_per_token(shape) * (spec.max_prompt + spec.max_response)


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
