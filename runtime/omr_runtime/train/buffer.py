"""A batch that is drawn and not yet learned to files of a checkpoint, one a rank, and back on any number of ranks.

The weights that drew it are gone when a run goes on, so it cannot be drawn again. Prompts are not kept: they follow from the rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from omr_runtime.train.fill import Batch, Group
from omr_runtime.train.prompts import Member
from omr_runtime.train.rollout import Questions, Rollout
from omr_runtime.verify.reward import Scored

NAME = "rollouts"


def write(folder: Path, rank: int, step: int, batch: Batch) -> None:
    """This rank's groups of the batch of step ``step``, and the prompts of all."""
    assert not batch.left_out, "with `refill` no batch is drawn ahead"
    state = {
        "step": step,
        "members": [(member.row, member.repeat) for member in batch.members],
        "num_teaching": batch.num_teaching,
        "seconds": (batch.rollout_s, batch.reward_s),
        "groups": {
            place: [_kept(rollout) for rollout in group] for place, group in batch.groups.items()
        },
    }
    torch.save(state, folder / f"{NAME}-{rank}.pt")


def read(folder: Path, rank: int, num_ranks: int, questions: Questions) -> tuple[int, Batch] | None:
    """The step and the batch, with the groups of this rank; None where none was kept."""
    states = [torch.load(file, weights_only=True) for file in folder.glob(f"{NAME}-*.pt")]
    if not states:
        return None
    members = [Member(*pair) for pair in states[0]["members"]]
    groups: dict[int, Group] = {}
    found = {place: kept for state in states for place, kept in state["groups"].items()}
    for place, kept in sorted(found.items()):
        if place % num_ranks == rank:
            groups[place] = [_rollout(one, members[place], questions) for one in kept]
    rollout_s, reward_s = states[0]["seconds"]
    teaching = states[0]["num_teaching"]
    batch = Batch(members, groups, [], len(members), 1, teaching, rollout_s, reward_s)
    return states[0]["step"], batch


def _kept(rollout: Rollout) -> dict[str, Any]:
    """Numbers as they are: a log-probability that was rounded would be another ratio."""
    scored = rollout.scored
    return {
        "index": rollout.index,
        "token_ids": torch.tensor(rollout.token_ids, dtype=torch.int32),
        "logprobs": torch.tensor(rollout.logprobs, dtype=torch.float64),
        "stopped": rollout.stopped,
        "response": rollout.response,
        "scored": (scored.value, scored.parts, scored.final_answer),
        "advantage": rollout.advantage,
        "flat": rollout.flat,
    }


def _rollout(kept: dict[str, Any], member: Member, questions: Questions) -> Rollout:
    return Rollout(
        questions.rows[member.row],
        kept["index"],
        questions.ask(member.row),
        kept["token_ids"].tolist(),
        kept["logprobs"].tolist(),
        kept["stopped"],
        kept["response"],
        Scored(*kept["scored"]),
        kept["advantage"],
        kept["flat"],
    )
