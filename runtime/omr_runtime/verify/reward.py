"""Rollouts to rewards: the recipe's reward expression, asked in the trainer's process with its workers beside it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from omr_runtime.verify.cascade import Cascade
from omr_runtime.verify.interpret import Row


@dataclass(frozen=True, slots=True)
class Scored:
    """The reward of one rollout, None where it is unknown (then the rollout is masked). ``parts`` is each predicate's
    value by its name. ``final_answer`` is what the response's format gives."""

    value: float | None
    parts: dict[str, float | None]
    final_answer: str | None


class Reward:
    """``with Reward(cascade) as reward: reward.score(rows)``; opens judges on entry, ends workers on exit.

    A row to score has the columns of the row schema with ``response`` set: question row and rollout in one.
    """

    def __init__(self, cascade: Cascade) -> None:
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
        return [
            Scored(
                None if outcome.value is None else float(outcome.value),
                outcome.parts,
                outcome.row.get("final_answer"),
            )
            for outcome in self._cascade.evaluate(rows)
        ]
