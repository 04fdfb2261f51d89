"""A signal, or the driver's wish, to a flag that a training looks at between steps: it then saves what is done and ends.

Slurm signals every process of a step, the ranks too; a driver that is told alone leaves a file, which the first rank finds.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from omr_runtime.errors import Resumable
from omr_runtime.keeper import WIND_DOWN
from omr_runtime.train.loop import Trainer
from omr_runtime.work import Work

SIGNALS = (signal.SIGTERM, WIND_DOWN)


class Stop:
    """Whether this rank was asked to end. Ranks hear of it at different moments, so they must agree before any acts."""

    def __init__(self, wish: Path, is_main: bool) -> None:
        self.wish, self.is_main = wish, is_main
        self.signalled = False

    def asked(self) -> bool:
        return self.signalled or (self.is_main and self.wish.exists())

    def hear(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True


@contextlib.contextmanager
def listening(work: Work, trainer: Trainer) -> Iterator[Stop]:
    """From here to the end a signal asks and kills no longer."""
    stop = Stop(work.stop_file, trainer.is_main)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.hear) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(trainer: Trainer, step: int, num_steps: int) -> Resumable:
    """What a training ends with that all ranks agreed to stop and that is saved after ``step`` steps; they leave their group."""
    trainer.leave()
    saved = f"saved after step {step:,} of {num_steps:,}" if step else "before its first step"
    return Resumable(f"asked to stop; {saved}")
