"""A work order to a running worker process below a keeper, its log, and the lines it reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import omr_runtime
import omrlang
from omr_runtime.errors import DamagedArtifact, Resumable, RunError
from omr_runtime.keeper import END, WIND_DOWN
from omr_runtime.lock import MARK
from omr_runtime.shortage import oom_kills, told
from omrlang.plan import PlanStage

INTERNAL = "internal error"
"""How the reason of a worker begins whose error nobody expected."""

DISK_FULL = 74
"""The exit status of a worker that had no room to write even why it stopped."""

_KEEPER = Path(__file__).with_name("keeper.py")


@dataclass(slots=True)
class Worker:
    """``process`` is the keeper; ``log`` takes all that the worker and its descendants print. ``oom_kills`` is the kernel's
    count when it started."""

    process: subprocess.Popen[bytes]
    log: Path
    log_start: int
    oom_kills: int | None = None

    def wind_down(self) -> None:
        """Ask the worker to finish what it has begun and to end."""
        if self.process.poll() is None:
            self.process.send_signal(WIND_DOWN)

    def stop(self) -> None:
        """End the worker and all below it. What it committed stays."""
        if self.process.poll() is None:
            self.process.send_signal(END)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def last_words(self, num_lines: int = 1) -> str:
        """The last lines that this worker printed."""
        with open(self.log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, size - 20_000))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-num_lines:])


def start(
    argv: Sequence[str], env: Mapping[str, str], log: Path, lock_descriptor: int, lock: Path
) -> Worker:
    """Start a worker. It dies with this process, holds the lock as long as it lives and is marked as this run's."""
    log.parent.mkdir(parents=True, exist_ok=True)
    kills = oom_kills()
    keeper = [sys.executable, "-I", "-S", str(_KEEPER), str(os.getpid()), *argv]
    with open(log, "ab") as file:
        log_start = file.tell()
        process = subprocess.Popen(
            keeper,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_environment(env, lock),
            pass_fds=(lock_descriptor,),
            start_new_session=True,  # so that Ctrl-C reaches the driver alone, which then ends the worker
        )
    return Worker(process, log, log_start, kills)


_SMALLER = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}
"""oneDNN, torch's kernels on a CPU, keeps 1,024 compiled ones with their buffers. Packs have ever new lengths, so a training
grew by 1 GB in 99 steps (135 million parameters), for nothing: with 32 of them a step took as long."""


def _environment(extra: Mapping[str, str], lock: Path) -> dict[str, str]:
    """This process's environment, with the folders of both packages first on the path of the worker."""
    roots = [str(Path(package.__path__[0]).parent) for package in (omrlang, omr_runtime)]
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*roots, given] if given else roots)
    return {
        **_SMALLER,
        **os.environ,
        **extra,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        MARK: str(lock),
    }


@dataclass(slots=True)
class Tail:
    """The lines of a progress file as they come."""

    path: Path
    offset: int = 0
    rest: bytes = field(default=b"")
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> str:
        """How far the worker had come when it last said anything."""
        if not self.last:
            return ""
        of = "" if self.last["total"] is None else f" of {self.last['total']:,}"
        return f" after {self.last['done']:,}{of} {self.last['unit']}"

    def read(self) -> list[dict[str, Any]]:
        """New whole lines since the last call."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self.offset += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # two processes that wrote at once; the next line follows in a moment
        self.last = found[-1] if found else self.last
        return found


def why_it_stopped(
    worker: Worker, stage: PlanStage, out: Path, checkpoints: Path, tail: Tail
) -> RunError:
    """The reason that the worker left in ``out``, or what its end tells."""
    code, address = worker.process.returncode, stage.address
    left = reason_left(out)
    if _was_killed_for_memory(worker, left):
        what = f"its process was killed by the kernel for want of memory{tail.reached}"
        message = told(stage, what, checkpoints)
        return Resumable(f"{address}: {message} (log: {worker.log})")
    if left is not None:
        message = f"{address}: {left['message']} (log: {worker.log})"
        damaged = left.get("damaged")
        if damaged:
            return DamagedArtifact(damaged)
        return Resumable(message) if left["exit_code"] == Resumable.exit_code else RunError(message)
    if code == DISK_FULL:
        return Resumable(f"{address}: the disk is full; free some space first")
    end = f"was killed by {_signal_name(code - 128)}" if code > 128 else f"ended with status {code}"
    hint = ", perhaps for want of memory" if code == 128 + signal.SIGKILL else ""
    return Resumable(f"{address}: its process {end}{hint}; the log says why: {worker.log}")


def reason_left(out: Path) -> dict[str, Any] | None:
    """What the worker left as its reason."""
    try:
        found: dict[str, Any] = json.loads((out / "error.json").read_text())
    except (OSError, ValueError):
        return None
    return found


def _was_killed_for_memory(worker: Worker, left: dict[str, Any] | None) -> bool:
    """The kernel's count moved. A rank whose peer it killed ends with an error of its own that says nothing of it."""
    now = oom_kills()
    moved = now is not None and worker.oom_kills is not None and now > worker.oom_kills
    return moved and (left is None or str(left["message"]).startswith(INTERNAL))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
