"""A training stage to the command that starts its processes: one, several on this machine, one a GPU, on several nodes.

Imports nothing heavy: the driver calls it.
"""

from __future__ import annotations

import glob
import os
import socket
import subprocess
import sys
from pathlib import Path

from omr_runtime.errors import RunError
from omr_runtime.work import Work
from omrlang.schema.sft import Training
from omrlang.settle import gpus_a_process, num_devices
from omrlang.types import Hardware, Zero

MODULE = "omr_runtime.stages"
TASK = "omr_runtime.train.task"
"""The same as a task of a Slurm step."""

GPU_FILES = (
    "/dev/nvidia[0-9]*",
    "/proc/driver/nvidia/gpus/*",
    "/dev/nvhost-gpu",
    "/dev/kfd",
    "/dev/dxg",
)
"""What Linux has where there is a GPU: NVIDIA's, also before anybody used it, and on a Jetson; AMD's; that of a Windows host."""


def without_gpu(spec: Training) -> str | None:
    """What somebody should know who counts on GPUs where this machine has none; None elsewhere."""
    hardware = spec.hardware
    if hardware is None or hardware.gpu is None or any(map(glob.glob, GPU_FILES)):
        return None
    return f"{spec.name} trains on the CPU: this machine has no GPU, its hardware `{hardware.name}` has {hardware.count}"


def ranks_of_a_node(spec: Training) -> int:
    """Processes that train on one machine."""
    if spec.hardware is None:
        return spec.processes
    return num_devices(spec) // per_node_and_nodes(spec.hardware, spec.name)[1]


def per_node_and_nodes(hardware: Hardware, address: str) -> tuple[int, int]:
    """Devices of one node, and how many nodes. RunError where some node would have fewer than the others."""
    nodes = -(-hardware.count // hardware.per_node)
    if nodes > 1 and hardware.count % hardware.per_node:
        raise RunError(
            f"{address}: {hardware.count} devices of `{hardware.name}` do not fill nodes of {hardware.per_node}; "
            "set `per_node` or their number so that they do"
        )
    return hardware.count // nodes, nodes


def command(work: Work, work_path: str | Path) -> tuple[list[str], dict[str, str]]:
    """``(argv, env)`` that runs the stage; ``env`` is what is set besides the driver's environment.

    One process without sharding needs no launcher. Several are started by torchrun, which ends all when one fails; those of
    several nodes by Slurm, in whose job the driver runs.
    """
    spec = work.stage.spec
    assert isinstance(spec, Training), "only training stages are launched here"
    count, nodes = num_devices(spec), 1
    if spec.hardware is not None:
        nodes = per_node_and_nodes(spec.hardware, work.stage.address)[1]
    if count == 1 and spec.sharding is None:
        return [sys.executable, "-m", MODULE, str(work_path)], {}
    env = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // (count // nodes)))}
    if isinstance(spec.sharding, Zero):
        env["ACCELERATE_USE_DEEPSPEED"] = "true"
        if spec.hardware is None or spec.hardware.gpu is None:
            env["DS_ACCELERATOR"] = "cpu"
    if nodes > 1:
        host = first_host(work.stage.address, nodes)
        env |= {"MASTER_ADDR": host, "MASTER_PORT": str(_free_port())}
        return [*_srun(spec, count, nodes), sys.executable, "-m", TASK, str(work_path)], env
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1"]
    where = [f"--nproc-per-node={count}", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return [*torchrun, *where, "-m", MODULE, str(work_path)], env


def first_host(address: str, nodes: int) -> str:
    """Where the first rank will be, and the driver is. RunError outside of a Slurm job with so many nodes."""
    given = int(os.environ.get("SLURM_JOB_NUM_NODES", "0"))
    if given < nodes:
        where = f"a Slurm job of {given}" if given else "no Slurm job"
        raise RunError(
            f"{address}: its hardware is {nodes} nodes, and this is {where}; "
            "`omr run FILE --emit slurm` writes the script that asks for them"
        )
    asked = ["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"{address}: `scontrol show hostnames` failed: {error}") from None
    if not told:
        raise RunError(f"{address}: `scontrol show hostnames` names no node")
    return told[0]


def _srun(spec: Training, count: int, nodes: int) -> list[str]:
    """One task a process; when one fails all end."""
    each, gpus = count // nodes, gpus_a_process(spec)
    argv = ["srun", f"--nodes={nodes}", f"--ntasks={count}", f"--ntasks-per-node={each}"]
    if spec.hardware is not None and spec.hardware.gpu is not None:
        argv.append(f"--gpus-per-node={each * gpus}")
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # a step no longer has it from its job
        argv.append(f"--cpus-per-task={int(cpus) * gpus}")
    return [*argv, "--distribution=block", "--kill-on-bad-exit=1", "--export=ALL"]


def _free_port() -> int:
    """For the ranks to meet at; the driver is on the node where the first of them will listen."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
