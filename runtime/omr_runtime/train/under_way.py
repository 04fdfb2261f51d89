"""Prompts under way to the batch of a step: the groups that end first. The others go on in the next step, or are left out.

Each process has its own: with B prompts a batch and O besides, on R processes, (B + O) / R groups are under way on each, and it learns
from the first B / R that are complete. Nothing about finishing crosses processes, so that none waits for another's answers while
it draws; which groups are learned from when hangs on their number. A group that was begun ``steps`` steps ago is waited for
and learned from first, so that none stays for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from omr_runtime.engines.asking import response_of
from omr_runtime.engines.decode import Ask, Sampled, Until
from omr_runtime.identity import order_key
from omr_runtime.train.prompts import Member
from omr_runtime.train.rollout import (
    Drawn,
    Questions,
    Rollout,
    Rollouts,
    Version,
    draw_of,
    grouped,
    seeded,
)
from omr_runtime.verify.reward import Reward, Scored
from omrlang.types import Continue


@dataclass(slots=True)
class Part:
    """What there is of one response: its tokens, by which steps' weights they were drawn, whether it has ended, and its reward
    then."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    ended: bool = False
    stopped: bool = False
    scored: Scored | None = None

    def add(self, one: Sampled, step: int) -> None:
        """Further tokens, drawn in ``step``."""
        self.token_ids += one.token_ids
        self.logprobs += one.logprobs
        self.versions.append((step, len(one.token_ids)))


@dataclass(slots=True)
class UnderWay:
    """One prompt's group, begun in step ``first``."""

    member: Member
    first: int
    parts: list[Part]

    @property
    def complete(self) -> bool:
        return all(part.ended for part in self.parts)


def begun(members: Sequence[Member], first: int, group: int) -> list[UnderWay]:
    """Groups of which nothing is drawn yet."""
    return [UnderWay(one, first, [Part() for _ in range(group)]) for one in members]


def draw_until(
    groups: Sequence[UnderWay],
    step: int,
    wanted: int,
    questions: Questions,
    rollouts: Rollouts,
    reward: Reward,
) -> list[UnderWay]:
    """Draw on until ``wanted`` groups are complete and none is overdue, and score what ended; all complete groups, first those
    that are overdue, else as they ended."""
    ends = _Ends(groups, step, wanted, questions)
    asks, places = _asks(groups, questions)
    with reward.meanwhile() as scoring:

        def done(one: Sampled) -> None:
            group, k = places[one.ask][0], places[one.ask][1][one.sample]
            part = group.parts[k]
            part.add(one, step + 1)
            part.ended, part.stopped = True, one.stopped
            scoring.put(len(scored), _drawn(questions, group, k).scorable())
            scored.append(part)
            ends.note(group)

        def left(one: Sampled) -> None:
            group, k = places[one.ask][0], places[one.ask][1][one.sample]
            group.parts[k].add(one, step + 1)

        scored: list[Part] = []
        if asks and not ends.enough():
            draw = draw_of(questions.spec, questions.loaded)
            rollouts.roller.roll(asks, draw, done, Until(ends.enough, left))
        for part, found in zip(scored, scoring.results(), strict=True):
            part.scored = found
    return ends.in_order()


class _Ends:
    """Which groups are complete, in the order in which they became it."""

    def __init__(
        self, groups: Sequence[UnderWay], step: int, wanted: int, questions: Questions
    ) -> None:
        limit = questions.spec.unfinished
        self._oldest = step - limit.steps if isinstance(limit, Continue) else -1
        self._complete = [group for group in groups if group.complete]
        late = sorted((group for group in groups if self._late(group)), key=lambda one: one.first)
        self._awaited = [group for group in late[:wanted] if not group.complete]
        self._wanted = wanted

    def _late(self, group: UnderWay) -> bool:
        return group.first <= self._oldest

    def note(self, group: UnderWay) -> None:
        """One of its responses ended."""
        if group.complete:
            self._complete.append(group)
            self._awaited = [one for one in self._awaited if one is not group]

    def enough(self) -> bool:
        return len(self._complete) >= self._wanted and not self._awaited

    def in_order(self) -> list[UnderWay]:
        late = sorted((one for one in self._complete if self._late(one)), key=lambda one: one.first)
        return [*late, *(one for one in self._complete if not self._late(one))]


def _asks(
    groups: Sequence[UnderWay], questions: Questions
) -> tuple[list[Ask], list[tuple[UnderWay, list[int]]]]:
    """What is still to draw, and whose each seed is. Responses with nothing yet share their prompt; one that was begun is read
    with what it has."""
    asks: list[Ask] = []
    places: list[tuple[UnderWay, list[int]]] = []
    for group in groups:
        ask = seeded(questions, group.member, group.first)
        fresh = [k for k, part in enumerate(group.parts) if not part.token_ids]
        if fresh:
            asks.append(replace(ask, seeds=tuple(ask.seeds[k] for k in fresh)))
            places.append((group, fresh))
        for k, part in enumerate(group.parts):
            if part.token_ids and not part.ended:
                tokens = tuple(part.token_ids)
                asks.append(replace(ask, seeds=(ask.seeds[k],), begun=tokens))
                places.append((group, [k]))
    return asks, places


def _drawn(questions: Questions, group: UnderWay, k: int) -> Drawn:
    part, row = group.parts[k], questions.rows[group.member.row]
    sampled = Sampled(0, k, part.token_ids, part.logprobs, part.stopped)
    return Drawn(row, sampled, response_of(questions.loaded, part.token_ids))


def rolled(group: UnderWay, questions: Questions) -> list[Rollout]:
    """The group as a step takes it; what has not ended has no reward."""
    ask = seeded(questions, group.member, group.first)
    drawn = [_drawn(questions, group, k) for k in range(len(group.parts))]
    scored = [part.scored or Scored(None, {}, None) for part in group.parts]
    found = grouped(questions.spec, group.member, ask, drawn, scored)
    return [
        replace(one, first=group.first + 1, versions=tuple(part.versions), ended=part.ended)
        for one, part in zip(found, group.parts, strict=True)
    ]


def shuffled(groups: Sequence[UnderWay], step: int, questions: Questions) -> list[UnderWay]:
    """In an order that says nothing of their lengths: minibatches are cut from it."""
    spec, rows = questions.spec, questions.rows

    def place(group: UnderWay) -> tuple[str, int, int]:
        row = rows[group.member.row]["id"]
        return order_key(spec.seed, f"batch {step}", row), group.first, group.member.repeat

    return sorted(groups, key=place)
