"""The policy of a moment to figures on rows that it is not trained on: asked, scored and measured as an ``eval`` does.

Nothing of it reaches the training: draws hang on seed and row alone, and the generators of the process are left as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omr_runtime.engines.asking import placeholders
from omr_runtime.engines.decode import Ask, Draw
from omr_runtime.identity import order_key
from omr_runtime.models import Loaded
from omr_runtime.store import ImageStore
from omr_runtime.train.loop import Trainer
from omr_runtime.train.rollout import Questions, Rollouts, draw_all, with_seeds
from omr_runtime.verify.asking import cascade_for
from omr_runtime.verify.cascade import Cascade
from omr_runtime.verify.measuring import Questions as Measured
from omr_runtime.verify.measuring import figures, measure_rows, questions_of
from omr_runtime.work import Work, read_rows
from omrlang.schema import Rl
from omrlang.settle import DEFAULT_SCORE
from omrlang.types import Watch

NAME = "watch"
"""What the names of the figures begin with: ``watch/accuracy``, ``watch/aime24/accuracy``."""

SAME_AT_EVERY_STEP = ("num_questions", "num_answers")


@dataclass(slots=True)
class Watcher:
    """``asks`` are this rank's questions, with the seeds of their answers; ``longest`` is the longest prompt with its answer,
    over all ranks."""

    watch: Watch
    trainer: Trainer
    questions: Questions
    mine: Sequence[int]
    asks: Sequence[Ask]
    draw: Draw
    longest: int
    cascade: Cascade
    measured: Measured

    def is_due(self, step: int) -> bool:
        """After ``step`` steps."""
        return step % self.watch.every == 0

    def look(self, rollouts: Rollouts) -> dict[str, float]:
        """The figures under the weights that ``rollouts`` has; the same on every rank. Every rank must call it."""
        rows = [self.questions.rows[i] for i in self.mine]
        with torch.random.fork_rng(devices=_devices()):
            drawn = draw_all(self.questions.loaded, rows, self.asks, self.draw, rollouts)
        outcomes = self.cascade.evaluate(
            {**one.scorable(), "parent": one.row["id"]} for one in drawn
        )
        found = [(one.row, None if one.value is None else float(one.value)) for one in outcomes]
        whole = [pair for part in self.trainer.gather(found) for pair in part]
        scored = ((row, score) for row, score in whole if score is not None)
        metrics = measure_rows(self.measured, scored, self.questions.spec.prompt)
        unscored = sum(score is None for _, score in whole)
        named = {
            f"{NAME}/{name}": value
            for name, value in figures(metrics).items()
            if not name.endswith(SAME_AT_EVERY_STEP)
        }
        return {**named, f"{NAME}/num_unscored": float(unscored)}


@contextlib.contextmanager
def open_watch(work: Work, spec: Rl, trainer: Trainer, loaded: Loaded) -> Iterator[Watcher | None]:
    """The stage's ``watch``, with its judges and workers; None where it has none."""
    if spec.watch is None:
        yield None
        return
    with cascade_for(work, spec.watch.score or DEFAULT_SCORE, spec.prompt, 1) as cascade:
        yield _watcher(work, spec, spec.watch, trainer, loaded, cascade)


def _watcher(
    work: Work, spec: Rl, watch: Watch, trainer: Trainer, loaded: Loaded, cascade: Cascade
) -> Watcher:
    entries = [work.rows_of(name) for name in watch.rows.names]
    rows = list({row["id"]: row for row in read_rows(entries)}.values())
    questions = Questions(rows, loaded, spec, ImageStore(work.state))
    mine = range(trainer.rank, len(rows), trainer.num_ranks)
    asks = [_seeded(questions, i, watch.n) for i in mine]
    most = watch.max_tokens or spec.max_response
    prompt = max(trainer.gather(max((len(ask.input_ids) for ask in asks), default=0)))
    stops = frozenset(loaded.stop_ids)
    never = placeholders(loaded)
    draw = Draw(watch.temperature, most, stops, watch.top_p, watch.top_k, never=never)
    measured = questions_of(entries, lambda name: "mean")
    return Watcher(watch, trainer, questions, mine, asks, draw, prompt + most, cascade, measured)


def _seeded(questions: Questions, i: int, n: int) -> Ask:
    """The same seeds at every step, so that what moves between steps is the policy."""
    key = order_key(questions.spec.seed, NAME, questions.rows[i]["id"])
    return with_seeds(questions.ask(i), int(key[:12], 16), n)


def _devices() -> list[Any]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
