"""An engine that leaves its GPU to the update: what it is told and when. There is no GPU here: vLLM is a stand-in that notes its
calls, and the engine of the training draws as always and only notes that it was let rest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_rl import made, rl_spec
from training_parts import drawn_rows, fresh_folder

from omr_runtime.engines import vllm
from omr_runtime.engines.decode import Ask, Draw, OnSampled
from omr_runtime.engines.protocol import Weights
from omr_runtime.engines.transformers import TransformersEngine
from omr_runtime.engines.vllm import VllmEngine
from omr_runtime.models import Loaded, load
from omr_runtime.train import rl, rollout
from omr_runtime.train.loop import Trainer
from omr_runtime.train.policy import Policy
from omr_runtime.train.rollout import Rollouts
from omr_runtime.work import InputRows, Shards
from omrlang.schema import Rl
from omrlang.types import RowSets, Vllm, Watch

Said = list[tuple[str, Any]]


class StandIn:
    """Takes down what vLLM is told."""

    def __init__(self) -> None:
        self.said: Said = []

    def sleep(self, level: int) -> None:
        self.said.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self.said.append(("wake up", tags))

    def collective_rpc(self, what: Any, kwargs: dict[str, Any]) -> None:
        self.said.append((what, [name for name, _ in kwargs["weights_iterator"]]))

    @property
    def llm_engine(self) -> StandIn:
        return self

    def reset_encoder_cache(self) -> None:
        self.said.append(("forget pictures", None))

    def reset_prefix_cache(self) -> bool:
        self.said.append(("reset", None))
        return True


def engine_of(monkeypatch: pytest.MonkeyPatch, on_gpu: bool) -> VllmEngine:
    monkeypatch.setattr(vllm, "_start", lambda *_: StandIn())
    monkeypatch.setattr(vllm, "_distribution", lambda: "pytest")
    monkeypatch.setattr(vllm, "_has_gpu", lambda: on_gpu)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    loaded: Any = SimpleNamespace(layout=SimpleNamespace(served_name=lambda name: name))
    return VllmEngine(loaded, "fp32", vllm.VllmLimits(64))


def test_it_wakes_for_its_weights_and_then_for_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the trainer's gathered weights and the cache are never there together. One that does not rest is only given weights."""
    engine = engine_of(monkeypatch, on_gpu=True)
    weights = [("lm_head.weight", torch.zeros(1))]
    pushed = ("reload_weights", ["lm_head.weight"])
    forgotten = [("forget pictures", None), ("reset", None)]
    for _ in range(2):
        engine.rest()
        engine.update_weights(weights)
    turn = [
        ("sleep", 2),
        ("wake up", ["weights"]),
        pushed,
        ("wake up", ["kv_cache"]),
        *forgotten,
    ]
    assert engine.llm.said == 2 * turn
    engine.update_weights(weights)
    assert engine.llm.said[len(2 * turn) :] == [pushed, *forgotten]


@pytest.mark.parametrize(("on_gpu", "behind", "rests"), [(True, 0, True), (True, 1, False), (False, 0, False)])  # fmt: skip
def test_only_one_that_shares_a_gpu_and_draws_in_turn_rests(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, behind: int, rests: bool
) -> None:
    engine = engine_of(monkeypatch, on_gpu)
    monkeypatch.setattr(rollout, "VllmEngine", lambda *_: engine)
    monkeypatch.setattr(rollout, "refusal", lambda _: None)
    loaded: Any = SimpleNamespace()
    trainer: Any = SimpleNamespace(num_ranks=1)
    spec = rl_spec(engine=Vllm(), behind=behind)
    assert (rollout.open_rollouts(spec, trainer, loaded, 64).let_rest is not None) == rests


def test_it_rests_while_a_step_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation wakes it, and the first batch is drawn before it ever rested."""
    done: list[str] = []

    class Notes(TransformersEngine):
        def roll(self, asks: Iterable[Ask], draw: Draw, done_: OnSampled) -> None:
            assert done[-1:] != ["rest"], "it is asked while it rests"
            done.append("roll")
            super().roll(asks, draw, done_)

        def update_weights(self, weights: Weights) -> None:
            done.append("push")
            super().update_weights(weights)

    def opened(spec: Rl, trainer: Trainer, loaded: Loaded, longest: int) -> Rollouts:
        engine = Notes(load(loaded.folder, spec.precision, "cpu"), 64)
        return Rollouts(engine, shares=False, let_rest=lambda: done.append("rest"))

    update = Policy.update

    def learned(self: Policy, *given: Any) -> Any:
        done.append("learn")
        return update(self, *given)

    monkeypatch.setattr(rl, "open_rollouts", opened)
    monkeypatch.setattr(Policy, "update", learned)
    base = fresh_folder(tmp_path / "base")
    work = made(tmp_path, base, steps=3, watch=Watch(every=2, rows=RowSets(names=("held_out",))))
    held_out = tmp_path / "store" / "held_out"
    Shards(held_out).write(0, {"row": drawn_rows(tmp_path, 4, seed=20)})
    entry = InputRows(name="held_out", fingerprint="held_out", folder=str(held_out))
    rl.train(work.model_copy(update={"others": (entry,)}))
    step = ["push", "roll", "rest", "learn"]
    # What validation woke has the weights of the next step already.
    assert done == ["roll", *step[1:], *step, "push", "roll", *step[1:]]
