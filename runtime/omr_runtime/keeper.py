"""Stands between the driver and one worker, so that no descendant of the worker outlives the driver.

Run as a file with the standard library only: ``python -I -S keeper.py DRIVER_PID COMMAND…``. A worker may start
others (torchrun its ranks, vLLM its engine) that know nothing of the driver; killing the worker alone would leave
them. The keeper asks the kernel for a signal when the driver dies and to be given all orphans below it, and kills
them all. It ends as the worker ended, 128 + signal for one that was killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from types import FrameType

WIND_DOWN = signal.SIGUSR1
"""Asks a worker to begin nothing new and to end when what it has begun is done. One that knows no such thing is ended."""

END = signal.SIGUSR2
"""Ends all below the keeper. Not SIGTERM: Slurm sends that to every process of a job, and a training that hears it saves."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
START_FAILED = 127


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the lock that descendants hold is what keeps a new run from writing beside them."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def parents() -> dict[int, int]:
    """The parent of each process."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    found[int(name)] = int(file.read().rsplit(b") ", 1)[1].split()[1])
            except OSError:
                continue
    return found


def descendants(ancestor: int) -> set[int]:
    """All processes below ``ancestor``."""
    of = parents()
    found: set[int] = set()
    grown = True
    while grown:
        grown = False
        for process, parent in of.items():
            if process not in found and (parent == ancestor or parent in found):
                found.add(process)
                grown = True
    return found


def kill_descendants(deadline_s: float = 10.0) -> None:
    """Kill until none is left: one may have been starting another meanwhile."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        below = descendants(os.getpid())
        if not below:
            return
        for process in below:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reap()
        time.sleep(0.01)


def reap() -> None:
    """Collect the ended children without waiting."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def end_all(number: int, frame: FrameType | None) -> None:
    """The driver died or asks to stop."""
    kill_descendants()
    os._exit(128 + number)


def pass_on(worker: int) -> None:
    """Have the worker, and nobody else, told to wind down."""

    def tell(number: int, frame: FrameType | None) -> None:
        try:
            os.kill(worker, number)
        except ProcessLookupError:
            return

    signal.signal(WIND_DOWN, tell)


def start(command: list[str]) -> int:
    """Fork and run the command; its process id."""
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(WIND_DOWN, signal.SIG_DFL)
        signal.signal(END, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == keeper:
            os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(START_FAILED)


def main() -> int:
    driver, command = int(sys.argv[1]), sys.argv[2:]
    signal.signal(END, end_all)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(WIND_DOWN, end_all)
    prctl(PR_SET_PDEATHSIG, END)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != driver:
        return 128 + END
    worker = start(command)
    pass_on(worker)
    while True:
        child, status = os.wait()
        if child == worker:
            break
    kill_descendants()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
