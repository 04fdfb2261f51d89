"""A socket to an engine that does what comes over it: ``python -m omr_runtime.engines.apart.serve SOCKET MEMORY PARENT``.

A thread reads, so that whoever sends never waits for an engine that draws, and the end of the other process is seen at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from torch import Tensor

from omr_runtime.engines.apart.buckets import halves_of, joined
from omr_runtime.engines.apart.messages import (
    Bucket,
    Close,
    Emptied,
    Gone,
    Leave,
    Next,
    Open,
    Opened,
    Push,
    Pushed,
    Roll,
    Rolled,
    Wants,
)
from omr_runtime.engines.decode import Ask, Draw, Sampled
from omr_runtime.engines.roller import Roller
from omr_runtime.errors import Resumable, RunError
from omr_runtime.keeper import PR_SET_PDEATHSIG, prctl

AHEAD = 32
"""Prompts that lie here before the engine takes them."""


class Left(Exception):
    """Ends what the engine draws; the other side wants no more of it."""


class Line:
    """The connection: what has come, in order, and whether the rest of what is drawn is wanted."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self.connection = connection
        self.is_left = threading.Event()
        self._come: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._read, name="reads", daemon=True).start()

    def take(self) -> Any:
        """The next message, waited for."""
        return self._come.get()

    def send(self, message: object) -> None:
        """OSError where nobody is there any more; the thread that reads ends the process then."""
        self.connection.send(message)

    def _read(self) -> None:
        while True:
            try:
                told = self.connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the trainer is gone
            except Exception:  # noqa: BLE001 - whoever takes would wait for ever
                traceback.print_exc()
                os._exit(1)
            if isinstance(told, Leave):
                self.is_left.set()
                told = Next(None)  # wakes an engine that waits for a prompt
            elif isinstance(told, Roll):
                self.is_left.clear()
            self._come.put(told)


def serve(line: Line, halves: tuple[Tensor, Tensor]) -> None:
    """Until the other side closes."""
    told = line.take()
    assert isinstance(told, Open), f"{told} before an engine is open"
    engine = told.opener()
    line.send(Opened(engine.name, engine.version))
    while not isinstance(told := line.take(), Close):
        match told:
            case Roll(draw):
                roll(line, engine, draw)
            case Push():
                engine.update_weights(_weights(line, halves))
                line.send(Pushed())
            case Next():  # of a roll that was left
                continue
            case _:
                raise AssertionError(f"{told} where an engine waits")
    engine.close()


def roll(line: Line, engine: Roller, draw: Draw) -> None:
    """Samples go back as they end."""

    def done(one: Sampled) -> None:
        if line.is_left.is_set():
            raise Left
        line.send(one)

    with contextlib.suppress(Left):
        engine.roll(_asks(line), draw, done)
    line.send(Rolled())


def _asks(line: Line) -> Iterator[Ask]:
    """Prompts as the engine takes them, a few ahead."""
    line.send(Wants(AHEAD))
    while True:
        told = line.take()
        assert isinstance(told, Next), f"{told} where a prompt was due"
        if told.ask is None:
            return
        line.send(Wants(1))
        yield told.ask


def _weights(line: Line, halves: tuple[Tensor, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return joined(_buckets(line), halves)


def _buckets(line: Line) -> Iterator[Bucket]:
    while True:
        told = line.take()
        assert isinstance(told, Bucket), f"{told} where weights were due"
        if not told.pieces:
            return
        yield told
        line.send(Emptied())


def die_with(parent: int) -> None:
    """Whatever ends the trainer ends this process. What tells a whole job to stop is for the trainer alone, which saves first."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def main(socket: int, memory: int, parent: int) -> int:
    die_with(parent)
    os.set_inheritable(socket, False)
    halves = halves_of(memory)
    os.close(memory)
    line = Line(Connection(socket))
    try:
        serve(line, halves)
    except RunError as error:
        line.send(Gone(str(error), isinstance(error, Resumable)))
        return 1
    except Exception as error:  # noqa: BLE001 the boundary of the process
        traceback.print_exc()
        line.send(
            Gone(f"the engine's process failed: {type(error).__name__}: {error}".splitlines()[0])
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
