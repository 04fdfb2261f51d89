"""A task of a Slurm step to a rank of a training: ``srun … python -m omr_runtime.train.task WORK.json``.

Slurm says who each task is; torch.distributed reads the same from other variables. No launcher stands between them, which would
kill its ranks 30 seconds after a signal however far they are with their checkpoint.
"""

from __future__ import annotations

import os
import sys

from omr_runtime.stages.__main__ import main

RANK_OF_TASK = {
    "RANK": "SLURM_PROCID",
    "WORLD_SIZE": "SLURM_NTASKS",
    "LOCAL_RANK": "SLURM_LOCALID",
}


def become_rank() -> None:
    """KeyError outside of a step."""
    os.environ.update({name: os.environ[given] for name, given in RANK_OF_TASK.items()})


if __name__ == "__main__":
    become_rank()
    sys.exit(main(sys.argv[1]))
