"""Prompts to the batch of a step: rounds of rollouts, until as many groups as are wanted have something to teach.

Without ``refill`` that is one round and every group is in the batch. With it groups without spread are replaced by those
of further prompts (DAPO, arXiv 2503.14476, section 3.2), and what is not used keeps its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from omr_runtime.errors import RunError
from omr_runtime.train.advantage import leaves_out_flat_groups, spread
from omr_runtime.train.prompts import Member, prompts_of_step
from omr_runtime.train.rollout import Rollout
from omrlang.schema import Rl
from omrlang.types import Dapo, OnSpread

Group: TypeAlias = Sequence[Rollout]
Take: TypeAlias = Callable[[int, int], Sequence[Member]]
"""``(asked so far, count)`` to the next prompts of the step, on all ranks alike."""
Roll: TypeAlias = Callable[[Sequence[Member]], Sequence[Group]]

NO_SPREAD = "no_spread"
UNKNOWN = "reward_unknown"
FULL = "batch_full"
UNFINISHED = "unfinished"


class Ranks(Protocol):
    """The processes of a run, as far as filling a batch needs them."""

    rank: int
    num_ranks: int

    def gather(self, value: Any) -> list[Any]: ...


@dataclass(slots=True)
class Batch:
    """``members`` are the prompts of the whole batch in order; ``groups`` those of this rank by their place in it, and
    ``left_out`` what this rank rolled out besides, with the reason. Of all ranks ``num_asked`` prompts were asked in
    ``num_rounds`` rounds, and the groups of ``num_teaching`` have spread. ``rollout_s`` is how long this rank took to draw and
    score its part, ``reward_s`` what of it nothing was left to draw. Spread was looked for in ``num_judged`` groups. ``more`` are further
    figures, of this rank, that are summed over all."""

    members: list[Member] = field(default_factory=list)
    groups: dict[int, Group] = field(default_factory=dict)
    left_out: list[tuple[Group, str]] = field(default_factory=list)
    num_asked: int = 0
    num_rounds: int = 0
    num_teaching: int = 0
    rollout_s: float = 0.0
    reward_s: float = 0.0
    num_judged: int = 0
    more: dict[str, float] = field(default_factory=dict)

    def parts(self, size: int) -> list[list[Group]]:
        """This rank's groups of each update, of which each has ``size`` prompts over all ranks."""
        starts = range(0, len(self.members), size)
        return [
            [self.groups[place] for place in sorted(self.groups) if place // size == start // size]
            for start in starts
        ]


def fill(spec: Rl, ranks: Ranks, step: int, take: Take, roll: Roll) -> Batch:
    """The batch of step ``step`` (from 1). RunError where ``refill`` does not fill it."""
    refill, wanted = refill_of(spec), prompts_of_step(spec)
    size = round(refill.generate.value) if refill and refill.generate else wanted
    batch = Batch()
    for _ in range(refill.rounds if refill else 1):
        members = take(batch.num_asked, size)
        batch.num_rounds += 1
        batch.num_asked += len(members)
        groups = roll(members[ranks.rank :: ranks.num_ranks])
        _place(batch, spec, ranks, members, groups)
        if refill is None or len(batch.members) == wanted:
            return batch
    raise RunError(_not_full(spec, step, batch, wanted))


def one_round(spec: Rl, ranks: Ranks, members: Sequence[Member], groups: Sequence[Group]) -> Batch:
    """The batch that ``groups``, this rank's of ``members``, are without ``refill``."""
    batch = Batch(num_asked=len(members), num_rounds=1)
    _place(batch, spec, ranks, members, groups)
    return batch


def refill_of(spec: Rl) -> OnSpread | None:
    """What the recipe says about groups that teach nothing."""
    return spec.algorithm.refill if isinstance(spec.algorithm, Dapo) else None


def _place(
    batch: Batch, spec: Rl, ranks: Ranks, members: Sequence[Member], groups: Sequence[Group]
) -> None:
    """Each group of a round into the batch, or beside it, in the order of the prompts over all ranks."""
    mine = iter(groups)
    verdicts: list[str | None] = [None] * len(members)
    for rank, part in enumerate(ranks.gather([_verdict(group, spec) for group in groups])):
        verdicts[rank :: ranks.num_ranks] = part
    batch.num_judged += len(members)
    for k, (member, verdict) in enumerate(zip(members, verdicts, strict=True)):
        group = next(mine) if k % ranks.num_ranks == ranks.rank else None
        batch.num_teaching += verdict is None
        reason = _left_out(batch, spec, verdict)
        if group is not None and reason is None:
            batch.groups[len(batch.members)] = group
        elif group is not None and reason is not None:
            batch.left_out.append((group, reason))
        if reason is None:
            batch.members.append(member)


def _verdict(group: Group, spec: Rl) -> str | None:
    """Why a group teaches nothing; None where its rewards differ."""
    refill = refill_of(spec)
    if refill is None or refill.of == "shaped_reward":
        differ = not group[0].flat
    else:
        differ = spread([rollout.scored.value for rollout in group])
    if differ:
        return None
    known = sum(rollout.scored.value is not None for rollout in group)
    return NO_SPREAD if known > 1 else UNKNOWN


def _left_out(batch: Batch, spec: Rl, verdict: str | None) -> str | None:
    """Why a group is no part of the batch: with ``refill`` for teaching nothing, or because the batch is full."""
    if refill_of(spec) is None:
        return None
    return FULL if verdict is None and len(batch.members) == prompts_of_step(spec) else verdict


def reason_unused(group: Group, spec: Rl) -> str | None:
    """Why a group of the batch has no part in the update: DAPO leaves out those without spread."""
    if group[0].flat and leaves_out_flat_groups(spec.algorithm):
        return NO_SPREAD
    return None


def _not_full(spec: Rl, step: int, batch: Batch, wanted: int) -> str:
    rows = f"{batch.num_asked:,} prompts in {batch.num_rounds} rounds"
    return (
        f"{spec.name}: step {step:,} is not full: of {rows} {batch.num_teaching:,} gave rollouts that differ in reward, "
        f"{wanted:,} are wanted. The prompts are too easy or too hard for the model: choose them by `pass_rate`, "
        "or allow `refill` more `rounds` or a larger `generate`"
    )
