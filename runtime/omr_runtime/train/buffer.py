"""What is drawn and not yet learned, a batch or groups under way, to files of a checkpoint, one a rank, and back on any number of
ranks.

The weights that drew it are gone when a run goes on, so it cannot be drawn again. Prompts are not kept: they follow from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from omr_runtime.train.fill import Batch, Group
from omr_runtime.train.prompts import Member
from omr_runtime.train.rollout import Questions, Rollout
from omr_runtime.train.under_way import Part, UnderWay
from omr_runtime.verify.reward import Scored

NAME = "rollouts"
UNDER_WAY = "under_way"


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
    batch = Batch(members, groups, [], len(members), 1, teaching, rollout_s, reward_s, len(members))
    return states[0]["step"], batch


def write_under_way(folder: Path, rank: int, groups: Sequence[UnderWay]) -> None:
    """This rank's groups, in their order."""
    state = [
        {"member": (one.member.row, one.member.repeat), "first": one.first, "parts": [_part(part) for part in one.parts]}
        for one in groups
    ]  # fmt: skip
    torch.save(state, folder / f"{UNDER_WAY}-{rank}.pt")


def read_under_way(folder: Path, rank: int, num_ranks: int) -> list[UnderWay]:
    """This rank's groups; dealt out in turn, as they were taken in, where other ranks had written them."""
    count = len(list(folder.glob(f"{UNDER_WAY}-*.pt")))
    files = [folder / f"{UNDER_WAY}-{other}.pt" for other in range(count)]
    told = [torch.load(file, weights_only=True) for file in files]
    mine = (
        told[rank]
        if count == num_ranks
        else [one for turn in zip_longest(*told) for one in turn if one is not None][
            rank::num_ranks
        ]
    )
    return [
        UnderWay(Member(*one["member"]), one["first"], [_part_again(part) for part in one["parts"]])
        for one in mine
    ]


def _part(part: Part) -> dict[str, Any]:
    scored = part.scored
    return {
        "token_ids": torch.tensor(part.token_ids, dtype=torch.int32),
        "logprobs": torch.tensor(part.logprobs, dtype=torch.float64),
        "versions": part.versions,
        "ended": (part.ended, part.stopped),
        "scored": None if scored is None else (scored.value, scored.parts, scored.final_answer),
    }


def _part_again(kept: dict[str, Any]) -> Part:
    scored, (ended, stopped) = kept["scored"], kept["ended"]
    return Part(
        kept["token_ids"].tolist(),
        kept["logprobs"].tolist(),
        [(step, count) for step, count in kept["versions"]],
        ended,
        stopped,
        None if scored is None else Scored(*scored),
    )


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
        "versions": list(rollout.versions),
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
        versions=tuple((step, count) for step, count in kept.get("versions", ())),
    )
