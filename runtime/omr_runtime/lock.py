"""One run at a time on a state folder: who holds it, and what a killed run left alive.

The lock is an flock that workers inherit, so it stays held until the last process that could write is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omr_runtime.errors import RunError
from omr_runtime.store import State

MARK = "OMR_LOCK"
"""Set in the environment of every worker to the path of the lock, so that orphans can be told from strangers."""

_ORPHANS_END_S = 20.0


@dataclass(frozen=True, slots=True)
class Lock:
    """Held. ``was_clean`` is false when the run before did not get to release it."""

    descriptor: int
    was_clean: bool


@contextlib.contextmanager
def hold(state: State, wait: bool = False) -> Iterator[Lock]:
    """Hold the state folder. RunError at once when another run does, unless ``wait``."""
    try:
        state.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunError(
            f"{state.folder}: the state folder cannot be used ({error.strerror})"
        ) from error
    try:
        _acquire(descriptor, state, wait)
        was_clean = not _holder(state.lock)
        kill_marked(state.lock)
        _write(descriptor, _self())
        yield Lock(descriptor, was_clean)
        _write(descriptor, None)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, state: State, wait: bool) -> None:
    said = False
    orphans_end = time.monotonic() + _ORPHANS_END_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(state.lock)
        if holder and not _is_alive(holder) and time.monotonic() < orphans_end:
            kill_marked(state.lock)
        elif not wait:
            raise RunError(
                f"{state.folder}: in use by {_describe(holder)}; --wait waits until it ends"
            )
        elif not said:
            print(f"waiting for {_describe(holder)}, which uses {state.folder}", file=sys.stderr)
            said = True
        time.sleep(0.1)


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "another run"
    return f"process {holder['pid']} on host {holder['host']} since {holder['since']}"


def _self() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "birth": _birth(os.getpid()),
    }


def _holder(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(descriptor: int, holder: dict[str, Any] | None) -> None:
    os.ftruncate(descriptor, 0)
    if holder:
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _birth(pid: int) -> str | None:
    """When the process started, in the kernel's ticks: tells a process from a later one with the same number.
    None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the driver that took the lock still runs; on another host it is taken to."""
    if holder["host"] != socket.gethostname():
        return True
    return holder["birth"] is not None and _birth(holder["pid"]) == holder["birth"]


def marked(lock: Path) -> list[int]:
    """Processes of this machine that a run on this lock started, without this one."""
    mark = f"{MARK}={lock}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in environment and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def kill_marked(lock: Path) -> None:
    """Kill what a dead driver left; only called when no driver holds the lock."""
    end = time.monotonic() + _ORPHANS_END_S
    while (left := marked(lock)) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
