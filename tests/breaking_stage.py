"""A stage's process whose training step breaks as the environment says: the real step, then what a real machine raises.

``python -m breaking_stage WORK.json``, as the driver starts ``omr_runtime.stages``. BREAK is ``gpu``, ``cpu`` or ``killed``,
BREAK_AT the step that does not end.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from omr_runtime.stages.__main__ import main
from omr_runtime.train import rl, sft
from omr_runtime.train.loop import Trainer


class BreakingTrainer(Trainer):
    """As its base, until the step in which memory runs out in the backward pass."""

    num_done = 0

    def _backward(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._backward(*args, **kwargs)
        if self.num_done == int(os.environ["BREAK_AT"]):
            run_out(os.environ["BREAK"])
        return found

    def step(self, *args: Any, **kwargs: Any) -> Any:
        self.num_done += 1
        return super().step(*args, **kwargs)


def run_out(how: str) -> None:
    if how == "gpu":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if how == "cpu":
        torch.empty(1 << 45)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sft.Trainer = rl.Trainer = BreakingTrainer  # type: ignore[misc, attr-defined]
    sys.exit(main(sys.argv[1]))
