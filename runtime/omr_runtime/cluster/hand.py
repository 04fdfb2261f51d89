"""Leases in, results out: the actor that works on a node of a Ray cluster.

A thread of its own does the work, so that giving and fetching never wait for it. Ray is not imported here: the class is
made an actor by the crew that hires it.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from omr_runtime.cluster.orders import Bench, Order, Unit, with_images_below
from omr_runtime.errors import Resumable, RunError

LINGER_S = 0.02
POLL_S = 1.0

Result: TypeAlias = tuple[int, int, Any]
"""The number of a unit, which part of it, and what came out."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """``sees`` is whether the state folder of the stage is seen on this node."""

    host: str
    version: str
    python: str
    sees: bool


@dataclass(frozen=True, slots=True)
class Opened:
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker ended. ``is_final``: the same would meet every other worker."""

    message: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Exchanged:
    results: list[Result]
    failure: Failure | None


class Hand:
    """One engine, or one cascade. What is left over of it when the actor ends, ends with its process."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._bench: Bench | None = None
        self._changed = threading.Condition()
        self._units: deque[Unit] = deque()
        self._results: list[Result] = []
        self._failure: Failure | None = None

    def greet(self, marker: str, token: str) -> Greeting:
        """Who is here, and whether the file ``marker`` is seen with what the stage wrote to it."""
        try:
            sees = Path(marker).read_text() == token
        except OSError:
            sees = False
        python = ".".join(map(str, sys.version_info[:2]))
        return Greeting(socket.gethostname(), version("omrlang"), python, sees)

    def lay(self, name: str, data: bytes, is_first: bool) -> None:
        """The next piece of a file below the worker's own folder."""
        path = self._root() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb" if is_first else "ab") as file:
            file.write(data)

    def _root(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="omr-")
        return Path(self._folder.name)

    def open(self, order: Order, environment: Mapping[str, str], sees: bool) -> Opened | Failure:
        """Be what the order says. ``environment`` has the secrets that its engines read, for this process only."""
        os.environ.update(environment)
        try:
            self._bench = order.open(None if sees else self._root())
        except RunError as error:
            return Failure(str(error), is_final=not isinstance(error, Resumable))
        except Exception as error:  # noqa: BLE001 the boundary of the actor
            traceback.print_exc()
            return Failure(_first_line(error), is_final=False)
        threading.Thread(target=self._work, name="work", daemon=True).start()
        return Opened(self._bench.name, self._bench.version)

    def exchange(self, units: Sequence[Unit], images: Mapping[str, bytes]) -> Exchanged:
        """Take new leases; give what is finished since the last call, or nothing after a while.

        ``images`` are those of the units that this worker has not seen, where it does not see the state folder.
        """
        for name, data in images.items():
            self.lay(name, data, is_first=True)
        with self._changed:
            self._units.extend(self._placed(unit) for unit in units)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._results or self._failure, POLL_S)
            self._changed.wait_for(lambda: self._failure, LINGER_S)
            results, self._results = self._results, []
            return Exchanged(results, self._failure)

    def _placed(self, unit: Unit) -> Unit:
        """The unit with its images where they lie on this node."""
        if self._folder is None:
            return unit
        return unit[0], with_images_below(unit[1], self._root())

    # ---- in the thread that works

    def _work(self) -> None:
        assert self._bench is not None, "opened before"
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._units)
                self._bench.serve(self._taken(), self._report)
        except RunError as error:
            self._end(Failure(str(error), is_final=not isinstance(error, Resumable)))
        except Exception as error:  # noqa: BLE001 the boundary of the actor
            traceback.print_exc()
            self._end(Failure(_first_line(error), is_final=False))

    def _taken(self) -> Iterator[Unit]:
        """Units as they are asked for. It ends when there is none at hand: waiting here would hold up what has begun."""
        while True:
            with self._changed:
                if not self._units:
                    return
                unit = self._units.popleft()
            yield unit

    def _report(self, number: int, part: int, result: Any) -> None:
        with self._changed:
            self._results.append((number, part, result))
            self._changed.notify_all()

    def _end(self, failure: Failure) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
