"""Rollouts that each rank drew to those that it trains: micro-batches of like cost, whoever drew them.

Lengths of responses have a long tail, so that by chance one rank draws far more tokens than another, which would wait for it at the
end of every update. What moves is what a response is made of; its prompt, with its images, every rank can encode for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from omr_runtime.engines.decode import Ask
from omr_runtime.models.families import Layout
from omr_runtime.train.batching import Sample, make_sample, micro_batches, shared_tokens, together
from omr_runtime.train.rollout import Rollout
from omr_runtime.train.utilisation import Cost

AskOf: TypeAlias = Callable[[str], Ask]
"""The id of a row to its encoded prompt."""
Place: TypeAlias = tuple[int, int]
"""Which rank drew it, and which of its units it is."""


class Ranks(Protocol):
    """The processes of a run, as far as sharing out needs them."""

    rank: int
    num_ranks: int
    layout: Layout
    cost: Cost

    def gather(self, value: Any) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Learned:
    """A rollout as an update needs it."""

    sample: Sample
    logprobs: Sequence[float]
    advantage: float


Unit: TypeAlias = Sequence[Learned]
"""Of one group, packed side by side."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """The same on its way to another rank, without its prompt. Every rank is sent all, and makes lists of what it trains alone."""

    name: str
    row: str
    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float64]
    advantage: float

    def arrived(self, layout: Layout, ask_of: AskOf) -> Learned:
        ask, response = ask_of(self.row), self.token_ids.tolist()
        sample = make_sample(self.name, ask.input_ids, response, layout, ask.inputs, group=self.row)
        return Learned(sample, self.logprobs.tolist(), self.advantage)


def share_out(
    used: Sequence[Rollout], ranks: Ranks, ask_of: AskOf, budget: int
) -> list[list[Learned]]:
    """This rank's micro-batches of an update, of which it drew ``used``: each of at most ``budget`` tokens, as many as every other rank
    has. Responses of a group that fit together stay together, so that they read their prompt once. Every rank must call it."""
    own = [_learned(rollout, ranks.layout) for rollout in used]
    units: list[Unit] = [
        [own[i] for i in unit] for unit in together([one.sample for one in own], budget)
    ]
    told = ranks.gather([_size(unit, ranks.cost) for unit in units])
    places = [(rank, k) for rank, part in enumerate(told) for k in range(len(part))]
    sizes = [size for part in told for size in part]
    lengths, costs = [length for length, _ in sizes], [cost for _, cost in sizes]
    parts = micro_batches(lengths, costs, budget, ranks.num_ranks)
    mine = [[places[i] for i in one] for one in parts[ranks.rank]]
    here = {(ranks.rank, k): unit for k, unit in enumerate(units)}
    here |= _exchanged(here, {place for one in mine for place in one}, ranks, ask_of)
    return [[one for place in places for one in here[place]] for places in mine] or [[]]


def _exchanged(
    here: Mapping[Place, Unit], wanted: Set[Place], ranks: Ranks, ask_of: AskOf
) -> dict[Place, Unit]:
    """The units that this rank wants of others, which it gives its own for. Pictures stand once for all responses to them."""
    ask_once = cache(ask_of)
    sent = {
        place: [_sent(one) for one in unit] for place, unit in here.items() if place not in wanted
    }
    return {
        place: [one.arrived(ranks.layout, ask_once) for one in unit]
        for part in ranks.gather(sent)
        for place, unit in part.items()
        if place in wanted
    }


def _learned(rollout: Rollout, layout: Layout) -> Learned:
    assert rollout.advantage is not None, "what nothing is known of teaches nothing"
    return Learned(rollout.sample(layout), rollout.logprobs, rollout.advantage)


def _sent(one: Learned) -> _Sent:
    sample = one.sample
    assert sample.group is not None, "a rollout has its prompt in common with others"
    response = np.array(sample.input_ids[sample.num_prompt :], np.int32)
    logprobs = np.array(one.logprobs, np.float64)
    return _Sent(sample.id, sample.group, response, logprobs, one.advantage)


def _size(unit: Unit, cost: Cost) -> tuple[int, float]:
    """Tokens and FLOPs of responses that read their prompt once."""
    samples = [one.sample for one in unit]
    prompt = samples[0].num_prompt
    responses = sum(cost.of_text(sample.num_response, prompt) for sample in samples)
    return shared_tokens(samples), cost.of_text(prompt) + responses
