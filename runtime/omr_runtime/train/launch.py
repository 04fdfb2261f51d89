"""A training stage to the command that starts its processes: one, several on this machine, one a GPU.

Imports nothing heavy: the driver calls it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from omr_runtime.work import Work
from omrlang.schema.sft import Training

MODULE = "omr_runtime.stages"


def num_processes(spec: Training) -> int:
    """One process a GPU, else the setting ``processes`` (or what a machine without a GPU declares)."""
    if spec.hardware is not None:
        return spec.hardware.count
    return spec.processes


def command(work: Work, work_path: str | Path) -> tuple[list[str], dict[str, str]]:
    """``(argv, env)`` that runs the stage; ``env`` is what is set besides the driver's environment.

    One process without sharding needs no launcher. Several are started by torchrun, which ends all when one fails.
    """
    spec = work.stage.spec
    assert isinstance(spec, Training), "only training stages are launched here"
    count = num_processes(spec)
    if count == 1 and spec.sharding is None:
        return [sys.executable, "-m", MODULE, str(work_path)], {}
    env = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    if spec.sharding is not None:
        env["ACCELERATE_USE_DEEPSPEED"] = "true"
        if spec.hardware is None or spec.hardware.gpu is None:
            env["DS_ACCELERATOR"] = "cpu"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1"]
    where = [f"--nproc-per-node={count}", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return [*torchrun, *where, "-m", MODULE, str(work_path)], env
