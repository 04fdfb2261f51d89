"""A training process's place among the GPUs of its machine -> vLLM apart, on the GPUs that are left for it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch

from omr_runtime.engines.apart.engine import EngineApart, devices_apart
from omr_runtime.engines.roller import Roller
from omr_runtime.engines.vllm import VllmEngine, VllmLimits
from omr_runtime.errors import RunError
from omr_runtime.models import Loaded, load_tokenizer
from omr_runtime.train.launch import ranks_of_a_node
from omrlang.schema import Rl
from omrlang.types import Vllm

VISIBLE = "CUDA_VISIBLE_DEVICES"


def vllm_apart(spec: Rl, loaded: Loaded, settings: Vllm, limits: VllmLimits) -> Roller:
    """The engine of this rank. RunError where the machine has too few GPUs, EngineDied where vLLM does not start."""
    opener = partial(open_vllm, loaded.folder, spec.precision, limits, settings)
    return EngineApart(opener, _own_devices(spec, settings))


def open_vllm(folder: Path, precision: str, limits: VllmLimits, settings: Vllm) -> Roller:
    """In the engine's own process."""
    return VllmEngine(load_tokenizer(folder), precision, limits, settings)


def _own_devices(spec: Rl, settings: Vllm) -> dict[str, str]:
    """The environment in which the engine sees its GPUs alone; nothing on a machine without one."""
    if spec.hardware is None or spec.hardware.gpu is None or not torch.cuda.is_available():
        return {}
    ranks, rank = ranks_of_a_node(spec), int(os.environ.get("LOCAL_RANK", "0"))
    found = os.environ.get(VISIBLE) or ",".join(map(str, range(torch.cuda.device_count())))
    mine = devices_apart(rank, ranks, settings.tensor_parallel, found.split(","))
    if len(mine) < settings.tensor_parallel:
        wanted = ranks * (1 + settings.tensor_parallel)
        raise RunError(
            f"{spec.name}: {ranks} processes with an engine apart each take {wanted} GPUs of a machine, "
            f"and this one has {torch.cuda.device_count()}"
        )
    return {VISIBLE: ",".join(mine)}
