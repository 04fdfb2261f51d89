"""Rewards while the engine still draws: the same as afterwards, in few requests, and nobody waits for a judge in vain."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from verify_parts import PROMPT, Program, ask, condition, reward, row

from omr_runtime.engines.protocol import Done, Request
from omr_runtime.errors import RunError
from omr_runtime.verify import reward as rewards
from omr_runtime.verify.cascade import Cascade
from omr_runtime.verify.judge import Judge
from omr_runtime.verify.math import MathPool
from omr_runtime.verify.reward import Reward, Scored

NUM = 100
ANSWERS = {"four": "yes", "five": "no"}


class Served(Program):
    """A judge on servers, ``concurrency`` requests at a time."""

    def __init__(self, concurrency: int | None) -> None:
        super().__init__(ANSWERS)
        self.concurrency = concurrency
        self.threads: list[threading.Thread] = []

    def generate(self, requests: Sequence[Request], done: Done) -> None:
        self.threads.append(threading.current_thread())
        super().generate(requests, done)


def rollouts() -> list[dict[str, Any]]:
    """Answers that a rule accepts, that math-verify must see, that a judge must see, and that nobody can tell."""
    given = ("4", "\\frac{8}{2}", "four", "five", "sechs")
    return [row(f"r{place}", given[place % len(given)]) for place in range(NUM)]


def scored(engine: Program, order: Iterable[int] | None = None, pause_s: float = 0.0) -> list[Scored]:  # fmt: skip
    """The rewards; with an ``order`` in which the rollouts end, while they do."""
    rows = rollouts()
    cascade = Cascade(
        reward(), PROMPT, open_judge=lambda _: Judge("referee", engine), math=MathPool(1)
    )
    with Reward(cascade) as scorer:
        if order is None:
            return scorer.score(rows)
        with scorer.meanwhile() as scoring:
            for place in order:
                scoring.put(place, rows[place])
                time.sleep(pause_s)
            return scoring.results()


@pytest.mark.parametrize("concurrency", [None, 1, 32])
def test_the_rewards_are_the_same_in_whatever_order_rollouts_end(concurrency: int | None) -> None:
    whole = scored(Served(concurrency))
    assert {one.value for one in whole} == {1.0, 0.1, None}
    for seed in range(3):
        order = random.Random(seed).sample(range(NUM), NUM)
        assert scored(Served(concurrency), order, pause_s=0.001 * seed) == whole


def test_servers_are_asked_meanwhile_and_in_few_batches() -> None:
    engine = Served(8)
    scored(engine, range(NUM), pause_s=0.01)
    assert 1 < len(engine.threads) <= NUM // 32 + 1
    assert threading.main_thread() not in engine.threads


def test_a_judge_in_this_process_is_asked_once_when_all_is_drawn_by_who_draws() -> None:
    engine = Served(None)
    scored(engine, range(NUM), pause_s=0.001)
    assert engine.threads == [threading.main_thread()]


def test_no_rollouts_have_no_rewards() -> None:
    assert scored(Served(8), ()) == []


def test_what_goes_wrong_meanwhile_is_raised() -> None:
    """A response can only be read by a format; here nobody names one."""
    cascade = Cascade(condition(ask("format_ok"), "format_ok"), math=MathPool(1))
    with Reward(cascade) as scorer, scorer.meanwhile() as scoring:
        for place, one in enumerate(rollouts()):
            scoring.put(place, one)
        with pytest.raises(RunError, match=r"row r\d+: .*format of prompt 'short:"):
            scoring.results()


class Silent(Served):
    """Never answers before it is let go."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked_one, self.free = threading.Event(), threading.Event()

    def generate(self, requests: Sequence[Request], done: Done) -> None:
        self.asked_one.set()
        self.free.wait(60)
        super().generate(requests, done)


def test_who_is_interrupted_does_not_wait_for_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "GIVEN_UP_S", 0.1)
    engine = Silent()
    cascade = Cascade(
        reward(), PROMPT, open_judge=lambda _: Judge("referee", engine), math=MathPool(1)
    )

    def interrupted() -> None:
        with Reward(cascade) as scorer, scorer.meanwhile() as scoring:
            for place, one in enumerate(rollouts()):
                scoring.put(place, one)
            assert engine.asked_one.wait(60)
            raise KeyboardInterrupt

    thread = threading.Timer(30, engine.free.set)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not engine.free.is_set()
    thread.cancel()
    engine.free.set()


def test_how_long_rewards_were_waited_for_is_known() -> None:
    engine = Silent()
    cascade = Cascade(
        reward(), PROMPT, open_judge=lambda _: Judge("referee", engine), math=MathPool(1)
    )
    with Reward(cascade) as scorer:
        for meanwhile in (True, False):
            before, engine.concurrency = scorer.waited_s, 1 if meanwhile else None
            with scorer.meanwhile() as scoring:
                for place, one in enumerate(rollouts()):
                    scoring.put(place, one)
                threading.Timer(0.3, engine.free.set).start()
                scoring.results()
            assert (scorer.waited_s - before > 0.2) == meanwhile, "the second time it knows them"
