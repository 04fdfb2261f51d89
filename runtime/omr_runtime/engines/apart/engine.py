"""A process with an engine, started and spoken to as if the engine were here; its end is told with what it last said.

Alone knows which GPUs such an engine has and what it inherits: a socket, the memory that weights go through, and nothing else.
It is a new program, no fork of this one, so no lock that a thread holds here is ever held there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from torch import Tensor

from omr_runtime.engines.apart.buckets import HALF_BYTES, cut, halves_of, new_memory
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
from omr_runtime.engines.decode import Ask, Draw, OnSampled, Sampled, Until
from omr_runtime.engines.protocol import EngineDied, Weights
from omr_runtime.engines.roller import Roller
from omr_runtime.errors import RunError

MODULE = "omr_runtime.engines.apart.serve"
LOOK_S = 1.0
"""How often a process that says nothing is looked at."""

CLOSE_S = 30.0
"""How long it may take to end."""

OF_THE_TRAINER = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_")  # fmt: skip
"""How variables begin that make a process a rank of a training."""

Answer = TypeVar("Answer")


def devices_apart(local_rank: int, num_local: int, each: int, visible: Sequence[str]) -> list[str]:
    """The GPUs of a rank's engine. The first of a machine train, a rank each; those after them draw.

    >>> [devices_apart(rank, 2, 3, list("01234567")) for rank in (0, 1)]
    [['2', '3', '4'], ['5', '6', '7']]
    """
    first = num_local + local_rank * each
    return list(visible[first : first + each])


class EngineApart:
    """``opener`` makes the engine there; ``extra`` is its environment besides this process's. EngineDied where it does not
    start."""

    def __init__(
        self,
        opener: Callable[[], Roller],
        extra: Mapping[str, str] | None = None,
        half_bytes: int = HALF_BYTES,
    ) -> None:
        memory = new_memory(half_bytes)
        self.halves: tuple[Tensor, Tensor] = halves_of(memory)
        self.connection, theirs = Pipe()
        self.last_words = ""
        self.is_gone = False
        self.process = _start(theirs, memory, extra or {})
        theirs.close()
        os.close(memory)
        self._log = threading.Thread(target=self._pass_on, name="engine's log", daemon=True)
        self._log.start()
        self._send(Open(opener))
        opened = self._expect(Opened)
        self.name, self.version = opened.name, opened.version

    def roll(
        self, asks: Iterable[Ask], draw: Draw, done: OnSampled, until: Until | None = None
    ) -> None:
        """Draw every sample of every ask. If ``done`` raises, what is not drawn yet is left and the engine is free again."""
        assert until is None, "a recipe with `oversample` has its engine in this process"
        waiting = iter(asks)
        self._send(Roll(draw))
        try:
            while not isinstance(told := self._receive(), Rolled):
                if isinstance(told, Sampled):
                    done(told)
                else:
                    self._give(waiting, told)
        except BaseException:
            if not self.is_gone:
                self._leave()
            raise

    def _leave(self) -> None:
        """Have the engine end what it draws; what it had sent by then is not wanted either."""
        self._send(Leave())
        while not isinstance(self._receive(), Rolled):
            continue

    def _give(self, waiting: Iterable[Ask], told: Any) -> None:
        """As many prompts as the engine wants. What the trainer's own model is given of a picture stays here."""
        assert isinstance(told, Wants), f"{told} where an engine rolls"
        for _ in range(told.count):
            ask = next(iter(waiting), None)
            self._send(Next(None if ask is None else replace(ask, inputs=None)))
            if ask is None:
                break

    def update_weights(self, weights: Weights) -> None:
        """Replace all weights: one half of the shared memory is filled while the engine reads the other."""
        self._send(Push())
        number = 0
        for number, group in enumerate(cut(weights, len(self.halves[0])), start=1):
            if number > 2:
                self._expect(Emptied)
            half = number % 2
            for piece, data in group:
                self.halves[half][piece.place : piece.place + piece.size].copy_(data)
            self._send(Bucket(half, tuple(piece for piece, _ in group)))
        self._send(Bucket(0, ()))
        for _ in range(min(number, 2)):
            self._expect(Emptied)
        self._expect(Pushed)

    def close(self) -> None:
        """End the process; one that does not end is killed."""
        with suppress(OSError):
            self.connection.send(Close())
        try:
            self.process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.connection.close()

    # ---- between the processes

    def _send(self, message: object) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise self._died() from None

    def _receive(self) -> Any:
        """The next message. EngineDied instead of it, and never a wait for a process that is gone."""
        try:
            while not self.connection.poll(LOOK_S):
                if self.process.poll() is not None and not self.connection.poll():
                    raise self._died()
            told = self.connection.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if isinstance(told, Gone):
            self.is_gone = True
            raise (EngineDied if told.is_fault else RunError)(told.message)
        return told

    def _expect(self, kind: type[Answer]) -> Answer:
        told = self._receive()
        assert isinstance(told, kind), f"{told} where {kind.__name__} was due"
        return told

    def _died(self) -> EngineDied:
        self.is_gone = True
        try:
            code = self.process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._log.join(LOOK_S)
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with status {code}"
        )
        hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        said = f"; it last said: {self.last_words}" if self.last_words else ""
        return EngineDied(f"the engine's process {how}{hint}{said}")

    def _pass_on(self) -> None:
        """All that it prints, to where this process prints."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line)
            self.last_words = line.decode(errors="replace").strip() or self.last_words


def _start(
    theirs: Connection[Any, Any], memory: int, extra: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """The process; to be called by a thread that stays, since the kernel ends it with the thread that started it."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(OF_THE_TRAINER)
    }
    told = [str(theirs.fileno()), str(memory), str(os.getpid())]
    return subprocess.Popen(
        [sys.executable, "-m", MODULE, *told],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**inherited, "PYTHONUNBUFFERED": "1", **extra},
        pass_fds=(theirs.fileno(), memory),
    )
