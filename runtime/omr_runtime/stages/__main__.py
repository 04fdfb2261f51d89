"""A work order's path to the stage that does it: ``python -m omr_runtime.stages WORK.json``.

The one boundary of a worker: an error that a person can act on leaves its message for the driver, anything else a
traceback in the log.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

from omr_runtime.errors import (
    DamagedArtifact,
    OutOfMemory,
    Resumable,
    RunError,
    is_disk_full,
    is_out_of_memory,
)
from omr_runtime.keeper import PR_SET_PDEATHSIG, prctl
from omr_runtime.shortage import told
from omr_runtime.store import State
from omr_runtime.supervise import DISK_FULL, INTERNAL
from omr_runtime.work import Work, fail


def die_with_parent() -> None:
    """Ranks that torchrun started end with it, however it ends."""
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGKILL)


def run(work: Work) -> None:
    """Do the work. Raises what the stage raises."""
    module = importlib.import_module(f"omr_runtime.stages.{work.stage.spec.kind}")
    module.run(work)


def main(path: str) -> int:
    die_with_parent()
    work = Work.read(path)
    try:
        run(work)
    except DamagedArtifact as error:
        return _report(work, str(error), error.exit_code, damaged=str(error.path))
    except OutOfMemory as error:
        traceback.print_exc()
        return _report(work, _shortage(work, str(error)), error.exit_code)
    except RunError as error:
        return _report(work, str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001 the boundary
        traceback.print_exc()
        if is_out_of_memory(error):
            return _report(work, _shortage(work, "out of memory"), Resumable.exit_code)
        if is_disk_full(error):
            return _report(work, "the disk is full", Resumable.exit_code)
        return _report(work, f"{INTERNAL}: {type(error).__name__}: {error}".splitlines()[0], 1)
    return 0


def _shortage(work: Work, what: str) -> str:
    checkpoints = State(Path(work.state)).checkpoints(work.stage.fingerprint)
    return told(work.stage, what, checkpoints)


def _report(work: Work, message: str, exit_code: int, damaged: str | None = None) -> int:
    print(message, file=sys.stderr, flush=True)
    # Of several ranks that fail together the first tells the cause; the others see its absence.
    if not (Path(work.out) / "error.json").exists():
        try:
            fail(work, message, exit_code, damaged)
        except OSError:
            return DISK_FULL
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
