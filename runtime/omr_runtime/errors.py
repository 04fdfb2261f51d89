"""What can go wrong in a run, each with the exit code that the command ends with."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory")
"""How torch says it where it raises nothing of its own: on a CPU, and from some libraries on a GPU."""


class RunError(Exception):
    """A failure that a person can act on. ``str(error)`` is the whole message; it names the file, row or setting.

    ``exit_code``: 1 nothing can go on; 3 a limit or an expectation is breached; 5 committed work stays and a
    re-run goes on from it.
    """

    exit_code = 1


class LimitBreached(RunError):
    """Over budget, or an ``expect`` that does not hold."""

    exit_code = 3


class Resumable(RunError):
    """A full disk, a dead engine, undecided rows: what was committed stays, running again goes on."""

    exit_code = 5


class OutOfMemory(Resumable):
    """Of a GPU or of the machine. ``str(error)`` says what was done then; which settings take less is added to it."""


class DamagedArtifact(Resumable):
    """A file of the store is gone, cut or changed. The next run makes the stage's artifact again."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{path}: missing or damaged; the next run makes this artifact again")
        self.path = Path(path)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, says that there is no room left to write."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        if "No space left on device" in str(error) or "File too large" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, says that there is no memory left."""
    torch = sys.modules.get("torch")  # who has not loaded it cannot have its error
    kinds = (MemoryError, OutOfMemory, *((torch.OutOfMemoryError,) if torch is not None else ()))
    while error is not None:
        if isinstance(error, kinds) or any(text in str(error) for text in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False
