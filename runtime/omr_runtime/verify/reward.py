"""Rollouts to rewards: the recipe's reward expression, asked in the trainer's process with its workers beside it.

Where it can be, it is asked while the engine still draws: a thread takes what is finished and gives it to the cascade.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

from omr_runtime.verify.cascade import Cascade, Outcome
from omr_runtime.verify.interpret import Row

Entry: TypeAlias = tuple[int, Row]
"""A row to score and its place among the results."""

GIVEN_UP_S = 2.0
"""How long a caller that goes away with an error waits for what is being asked."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The reward of one rollout, None where it is unknown (then the rollout is masked). ``parts`` is each predicate's
    value by its name. ``final_answer`` is what the response's format gives."""

    value: float | None
    parts: dict[str, float | None]
    final_answer: str | None


class Reward:
    """``with Reward(cascade) as reward: reward.score(rows)``; opens judges on entry, ends workers on exit.

    A row to score has the columns of the row schema with ``response`` set: question row and rollout in one. ``waited_s`` is
    how long anybody has waited for rewards when nothing was left to draw. One caller at a time.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.waited_s = 0.0
        self._cascade = cascade
        self._stack = ExitStack()

    def __enter__(self) -> Reward:
        self._stack.enter_context(self._cascade)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def score(self, rows: Iterable[Row]) -> list[Scored]:
        """The reward of each rollout, in order."""
        return [_scored(outcome) for outcome in self._cascade.evaluate(rows)]

    def meanwhile(self) -> Scoring:
        """Where rollouts are put as they are finished, in any order; to be used as a context."""
        return Scoring(self, self._cascade)


class Scoring:
    """Rewards of one set of rollouts. What the cascade can answer beside an engine is asked as soon as there is enough of
    it, the rest when all are there. What goes wrong meanwhile is raised by ``results``."""

    def __init__(self, reward: Reward, cascade: Cascade) -> None:
        self._reward, self._cascade = reward, cascade
        self._at_least = cascade.at_least
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._found: dict[int, Scored] = {}
        self._error: BaseException | None = None
        self._given_up = False
        # A daemon, since a caller that is interrupted does not wait for a judge that is asked.
        self._thread = threading.Thread(target=self._score, name="rewards", daemon=True)

    def __enter__(self) -> Scoring:
        if self._at_least is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._thread.is_alive():
            self._given_up = True
            self._queue.put(None)
            self._thread.join(GIVEN_UP_S)

    def put(self, place: int, row: Row) -> None:
        """A rollout that is finished; each has a place of its own. Never waits."""
        self._queue.put((place, row))

    def results(self) -> list[Scored]:
        """The rewards of all that were put, by their places; nothing is put any more."""
        start = time.perf_counter()
        self._queue.put(None)
        if self._at_least is None:
            self._score()
        else:
            self._thread.join()
        self._reward.waited_s += time.perf_counter() - start
        if self._error is not None:
            raise self._error
        return [self._found[place] for place in sorted(self._found)]

    def _score(self) -> None:
        try:
            for places, outcomes in self._cascade.evaluate_batches(self._batches()):
                self._found |= zip(places, map(_scored, outcomes), strict=True)
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            self._error = error

    def _batches(self) -> Iterator[tuple[tuple[int, ...], list[Row]]]:
        """What waits, once it is enough; at the end whatever there is."""
        entries: list[Entry] = []
        while True:
            entry = self._queue.get()
            if entry is not None:
                entries.append(entry)
            is_last = entry is None
            if self._given_up:
                return
            if entries and (is_last or self._is_enough(entries)):
                yield from _cut(entries, self._cascade.batch_rows)
                entries = []
            if is_last:
                return

    def _is_enough(self, entries: list[Entry]) -> bool:
        """Not before the queue is empty: the more go together the better."""
        return self._at_least is not None and len(entries) >= self._at_least and self._queue.empty()


def _cut(entries: list[Entry], size: int) -> Iterator[tuple[tuple[int, ...], list[Row]]]:
    """By place, so that what was put at once is looked at in the order of its places."""
    entries.sort(key=lambda entry: entry[0])
    for start in range(0, len(entries), size):
        part = entries[start : start + size]
        yield tuple(place for place, _ in part), [row for _, row in part]


def _scored(outcome: Outcome) -> Scored:
    value = None if outcome.value is None else float(outcome.value)
    return Scored(value, outcome.parts, outcome.row.get("final_answer"))
