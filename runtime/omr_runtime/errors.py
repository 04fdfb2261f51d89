"""What can go wrong in a run, each with the exit code that the command ends with."""

from __future__ import annotations


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
