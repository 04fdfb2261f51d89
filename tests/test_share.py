"""Rollouts of several ranks, here threads that speak through a list, to the micro-batches that each trains."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omr_runtime.engines.decode import Ask
from omr_runtime.models.families import Layout
from omr_runtime.train.rollout import Rollout
from omr_runtime.train.share import Learned, share_out
from omr_runtime.train.utilisation import Cost
from omr_runtime.verify.reward import Scored

COST = Cost(token=8_192.0, pair=2.0)
SCORED = Scored(1.0, {}, None)


@dataclass
class Meeting:
    """Where ranks leave what they tell each other."""

    num_ranks: int
    barrier: threading.Barrier = field(init=False)
    told: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.num_ranks, timeout=20)
        self.told = [None] * self.num_ranks


@dataclass
class Rank:
    rank: int
    meeting: Meeting
    layout: Layout = field(default_factory=Layout)
    cost: Cost = COST

    @property
    def num_ranks(self) -> int:
        return self.meeting.num_ranks

    def gather(self, value: Any) -> list[Any]:
        self.meeting.told[self.rank] = value
        self.meeting.barrier.wait()
        found = list(self.meeting.told)
        self.meeting.barrier.wait()
        return found


def ask_of(row: str) -> Ask:
    """As many prompt tokens as the row's number says, each of which is that number, and a picture of its own."""
    number = int(row)
    return Ask([number] * number, (), {"pixel_values": torch.full((2, 3), float(number))})


def group(number: int, lengths: list[int]) -> list[Rollout]:
    row, ask = {"id": str(number)}, ask_of(str(number))
    return [
        Rollout(row, i, ask, [100 + i] * n, [-0.1 * i] * n, True, "", SCORED, i - 1.5, False)
        for i, n in enumerate(lengths)
    ]


def shared(drawn: list[list[Rollout]], budget: int) -> list[list[list[Learned]]]:
    """What each rank trains of what each drew."""
    meeting = Meeting(len(drawn))

    def of_rank(rank: int) -> list[list[Learned]]:
        return share_out(drawn[rank], Rank(rank, meeting), ask_of, budget)

    with ThreadPoolExecutor(len(drawn)) as pool:
        return list(pool.map(of_rank, range(len(drawn))))


def cost(one: Learned) -> float:
    """Of a response after its prompt."""
    return COST.of_text(one.sample.num_response, one.sample.num_prompt)


GROUPS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), max_size=12)


@settings(deadline=None)
@given(GROUPS, st.integers(1, 4), st.integers(1, 200), st.data())
def test_every_rollout_is_trained_once_as_it_was_drawn(
    groups: list[list[int]], ranks: int, budget: int, data: st.DataObject
) -> None:
    """Also where some ranks drew nothing, and where nobody did."""
    drawn: list[list[Rollout]] = [[] for _ in range(ranks)]
    for number, lengths in enumerate(groups, 1):
        drawn[data.draw(st.integers(0, ranks - 1))] += group(number, lengths)
    parts = shared(drawn, budget)
    assert len({len(part) for part in parts}) == 1
    assert parts[0], "a step without rollouts has a dummy"
    found = {one.sample.id: one for part in parts for batch in part for one in batch}
    assert sum(len(batch) for part in parts for batch in part) == len(found)
    everyone = {rollout.name: rollout for part in drawn for rollout in part}
    assert found.keys() == everyone.keys()
    for name, one in found.items():
        rollout, sample = everyone[name], one.sample
        assert sample.input_ids == (*rollout.ask.input_ids, *rollout.token_ids)
        assert sample.num_prompt == len(rollout.ask.input_ids)
        assert sample.group == rollout.row["id"]
        assert sample.images is not None
        assert rollout.ask.inputs is not None
        assert torch.equal(sample.images["pixel_values"], rollout.ask.inputs["pixel_values"])
        assert list(one.logprobs) == rollout.logprobs
        assert one.advantage == rollout.advantage


def test_ranks_train_alike_whoever_drew_the_long_ones() -> None:
    """One of four drew nine tenths of the tokens."""
    drawn = [group(n, [60 if n < 9 else 5] * 8) for n in range(1, 33)]
    by_rank = [[one for part in drawn[k : k + 8] for one in part] for k in (0, 8, 16, 24)]
    before = [sum(len(one.token_ids) for one in part) for part in by_rank]
    assert max(before) > 10 * min(before)
    parts = shared(by_rank, 500)
    costs = [sum(cost(one) for batch in part for one in batch) for part in parts]
    assert max(costs) < 1.1 * min(costs)


def test_a_row_that_two_ranks_drew_keeps_all_its_responses() -> None:
    """Asked twice in a batch: the second group counts on."""
    first, second = group(3, [4] * 3), group(3, [9] * 3)
    second = [replace(one, index=one.index + 3) for one in second]
    (one, other) = shared([first, second], 200)
    trained = [learned.sample for part in (one, other) for batch in part for learned in batch]
    assert sorted((sample.id, sample.num_response) for sample in trained) == [
        (f"3/{k}", 4 if k < 3 else 9) for k in range(6)
    ]


def test_a_group_stays_together_where_it_fits() -> None:
    """Its pictures stand once, also where it was drawn elsewhere."""
    parts = shared([group(1, [9] * 4) + group(2, [9] * 4), group(3, [9] * 4)], 64)
    for part in parts:
        for batch in part:
            assert len({one.sample.group for one in batch}) == len(
                {id(one.sample.images) for one in batch}
            )
    trained = [
        (rank, number, one.sample.group)
        for rank, part in enumerate(parts)
        for number, batch in enumerate(part)
        for one in batch
    ]
    assert len(set(trained)) == 3, "each group in one micro-batch"
