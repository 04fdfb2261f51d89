"""A stand-in for Slurm's ``sbatch``, ``srun`` and ``scontrol``, by the name under which it is called. It is not Slurm: it runs a
job at once, on this machine, and calls its processes nodes. It knows what a script of ours says to the three, and no more.

What jobs and steps were asked for is written, a JSON line each, to ``$STAND_IN/calls``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["STAND_IN"])


def option(words: list[str], name: str, default: str = "") -> str:
    found = [word.partition("=")[2] for word in words if word.startswith(f"--{name}=")]
    return found[-1] if found else default


def note(program: str, words: list[str]) -> None:
    with open(HOME / "calls", "a") as file:
        file.write(json.dumps([program, *words]) + "\n")


def _filled(pattern: str, number: int) -> str:
    return re.sub("%(.)", lambda found: {"%": "%", "j": str(number)}[found[1]], pattern)


def sbatch(words: list[str]) -> int:
    number = len(list(HOME.glob("job-*.sh"))) + 1
    job = HOME / f"job-{number}.sh"
    job.write_text(sys.stdin.read())
    before = option(words, "dependency").partition("afterok:")[2]
    if before and (HOME / f"ended-{before}").read_text() != "0":
        print(f"job {before} did not end well", file=sys.stderr)
        return 1
    nodes = option(words, "nodes")
    env = {
        **os.environ,
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_JOB_NODELIST": f"localhost*{nodes}",
        "SLURM_CPUS_PER_TASK": option(words, "cpus-per-task"),
    }
    with open(_filled(option(words, "output"), number), "wb") as out:
        process = subprocess.Popen(["bash", str(job)], env=env, stdout=out, stderr=out)
        (HOME / "batch").write_text(str(process.pid))
        code = process.wait()
    (HOME / f"ended-{number}").write_text(str(code))
    print(f"{number};cluster")
    return 0


def srun(words: list[str]) -> int:
    """Each task a process; on SIGTERM it is passed on, and when one fails the others end."""
    at = next(i for i, word in enumerate(words) if not word.startswith("--"))
    count, each = (int(option(words, name)) for name in ("ntasks", "ntasks-per-node"))
    tasks = []
    for rank in range(count):
        who = {"SLURM_PROCID": rank, "SLURM_NTASKS": count, "SLURM_LOCALID": rank % each}
        env = {**os.environ, **{name: str(value) for name, value in who.items()}}
        tasks.append(subprocess.Popen(words[at:], env=env))
    signal.signal(
        signal.SIGTERM, lambda number, frame: [task.terminate() for task in tasks] and None
    )
    codes = [task.wait() for task in tasks]
    return max(codes, key=abs)


def scontrol(words: list[str]) -> int:
    if words[:2] == ["show", "hostnames"]:
        host, _, count = words[2].partition("*")
        print("\n".join([host] * int(count)))
    return 0


if __name__ == "__main__":
    name = Path(sys.argv[0]).name
    note(name, sys.argv[1:])
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[name](sys.argv[1:]))
