"""More prompts under way than a step learns from: who drew each token, what is left out, stopped and resumed, two processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_rl import launch, made, metric, rl_work, table, weights
from training_parts import drawn_rows, fresh_folder, killed_after_saving

from omr_runtime.engines.decode import Ask, Draw, Sampled, Until, samples
from omr_runtime.engines.transformers import TransformersEngine
from omr_runtime.models import load
from omr_runtime.train import buffer, rl
from omr_runtime.train.policy import Policy
from omr_runtime.train.prompts import Member
from omr_runtime.train.rollout import Rollout
from omr_runtime.train.under_way import Part, UnderWay
from omr_runtime.work import Work
from omrlang.schema import Rl
from omrlang.types import Amount, Continue, Drop, Gspo, TokenTruncated

TWO = Amount(value=2, unit="prompts")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = fresh_folder(tmp_path_factory.mktemp("base"))
    return folder


def oversampled(state: Path, base: Path, **changes: Any) -> Work:
    settings: dict[str, Any] = {
        "steps": 5,
        "oversample": TWO,
        "unfinished": Continue(),
        "max_response": 24,
        "group": 2,
    }
    return made(state, base, **settings | changes)


def seen_batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Rollout], dict[str, Any]]]:
    """The rollouts of each step, and the weights that drew in it."""
    found: list[tuple[list[Rollout], dict[str, Any]]] = []
    update = Policy.update

    def kept(self: Policy, batches: Any, lr: float) -> Any:
        own = {name: tensor.clone() for name, tensor in self.trainer.weights()}
        found.append(([one for groups in batches for group in groups for one in group], own))
        return update(self, batches, lr)

    monkeypatch.setattr(Policy, "update", kept)
    return found


def scores(model: Any, one: Rollout) -> torch.Tensor:
    """The log-probability of each token of the response under a model's own forward pass."""
    ids, start = torch.tensor([[*one.ask.input_ids, *one.token_ids]]), len(one.ask.input_ids)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, start - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(1, ids[0, start:, None])[:, 0]


def test_each_token_is_recorded_as_the_weights_that_drew_it_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored again by the weights of that step; those of the step after do not have it so."""
    steps = seen_batches(monkeypatch)
    base = fresh_folder(tmp_path / "base", "qwen2")
    rows = drawn_rows(tmp_path, 10, with_images=False)
    spec = oversampled(tmp_path / "unused", base, lr={"kind": "constant", "peak": 3e-2}).stage.spec
    assert isinstance(spec, Rl)
    rl.train(rl_work(tmp_path, base, rows, spec))
    model = load(base).model
    assert model is not None
    num_carried = 0
    for rollouts, _ in steps:
        for one in rollouts:
            by_step = []
            for _, own in steps:
                assert not model.load_state_dict(own, strict=False).unexpected_keys
                by_step.append(scores(model, one))
            at = 0
            for step, count in one.versions:
                drawn = torch.tensor(one.logprobs[at : at + count])
                apart = [float((p[at : at + count] - drawn).abs().max()) for p in by_step]
                assert apart[step - 1] < 1e-4
                assert min(apart[step : step + 1], default=1.0) > 1e-4
                at += count
            assert at == len(one.token_ids)
            num_carried += len(one.versions) > 1
    assert num_carried >= 2


def test_what_is_carried_is_recorded(tmp_path: Path, base: Path) -> None:
    work = oversampled(tmp_path, base)
    rl.train(work)
    rollouts = table(work, "rollout")
    assert len({line["id"] for line in rollouts}) == len(rollouts)
    assert sum(metric(work, "prompts")) * 2 == len(rollouts), "every prompt that was asked is there"
    assert metric(work, "prompts") == [6, 4, 4, 4, 4]
    for step in range(1, 6):
        used = [line for line in rollouts if line["step"] == step and line["left_out"] is None]
        assert len(used) == 4 * 2
        assert (
            sum(line["carried_tokens"] for line in used) == metric(work, "carried_tokens")[step - 1]
        )
    assert metric(work, "carried_tokens")[0] == 0
    assert sum(metric(work, "carried_tokens")) > 0
    rest = [line for line in rollouts if line["left_out"]]
    assert {line["step"] for line in rest} == {5}
    assert min(line["first_step"] for line in rollouts if line["step"] == 3) < 3


def test_dropped_ones_are_left_out_with_their_reason(tmp_path: Path, base: Path) -> None:
    work = oversampled(tmp_path, base, unfinished=Drop())
    rl.train(work)
    rollouts = table(work, "rollout")
    assert metric(work, "prompts") == [6] * 5
    assert len(rollouts) == 5 * 6 * 2
    rest = [line for line in rollouts if line["left_out"]]
    assert len(rest) == 5 * 2 * 2
    assert {line["left_out"] for line in rest} <= {"unfinished", "batch_full"}
    assert sum(line["num_tokens"] for line in rest) == sum(metric(work, "left_tokens"))
    for line in rollouts:
        assert (line["finish"] == "unfinished") <= (line["left_out"] == "unfinished")
        assert line["carried_tokens"] == 0
    assert max(metric(work, "clip_fraction")) == 0, "it is the policy's own"


def test_a_group_is_waited_for_in_the_end(tmp_path: Path, base: Path) -> None:
    """With steps = 1 no group is learned from later than a step after its own."""
    work = oversampled(tmp_path, base, steps=8, unfinished=Continue(steps=1))
    rl.train(work)
    used = [line for line in table(work, "rollout") if line["left_out"] is None]
    assert max(line["step"] - line["first_step"] for line in used) == 1


def test_the_ratio_is_to_who_drew(tmp_path: Path, base: Path) -> None:
    work = oversampled(tmp_path / "ratio", base, algorithm=Gspo(clip=(3e-4, 4e-4)))
    rl.train(work)
    clipped = metric(work, "clip_fraction")
    assert clipped[0] == 0
    assert max(clipped) > 0
    apart = oversampled(tmp_path / "apart", base, rollout_correction=TokenTruncated())
    rl.train(apart)
    assert max(metric(apart, "clip_fraction")) == 0
    assert any(abs(one - 1.0) > 1e-4 for one in metric(apart, "rollout_weight"))


def test_a_stopped_run_goes_on_exactly(tmp_path: Path, base: Path) -> None:
    whole, stopped = (oversampled(tmp_path / name, base) for name in ("whole", "stopped"))
    rl.train(whole)
    for _ in range(2):
        with killed_after_saving(1, 3):
            rl.train(stopped)
    rl.train(stopped)
    for name in ("rollout", "use"):
        assert table(stopped, name) == table(whole, name)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(stopped)[name])


def test_every_prompt_of_an_epoch_is_learned_from_once(tmp_path: Path, base: Path) -> None:
    work = oversampled(tmp_path, base, steps=None, epochs=1)
    rl.train(work)
    rollouts = table(work, "rollout")
    assert len(rollouts) == 10 * 2
    assert {line["left_out"] for line in rollouts} == {None}
    assert max(line["step"] for line in rollouts) == 3


def test_groups_come_back_on_another_number_of_ranks(tmp_path: Path) -> None:
    groups = [UnderWay(Member(k), k, [Part([k], [-1.5], [(k, 1)], True, k > 2)]) for k in range(4)]
    for rank in range(2):
        buffer.write_under_way(tmp_path, rank, groups[rank::2])
    assert buffer.read_under_way(tmp_path, 0, 1) == groups
    assert buffer.read_under_way(tmp_path, 1, 2) == groups[1::2]
    assert buffer.read_under_way(tmp_path, 3, 4) == groups[3:]


def test_drawing_ends_between_two_tokens_and_goes_on_with_the_same_chance(base: Path) -> None:
    """Under the same weights a response that was cut is the one that was not."""
    loaded = load(base)
    engine, draw = TransformersEngine(loaded, 8), Draw(1.0, 16, frozenset(loaded.stop_ids))
    ask = Ask(loaded.tokenizer("count the shapes")["input_ids"], (5, 6, 7))
    whole = samples(loaded.model, [ask], draw, 8)
    ended: list[Sampled] = []
    left: list[Sampled] = []
    calls = iter([False] * 5)
    engine.roll([ask], draw, ended.append, Until(lambda: next(calls, True), left.append))
    assert left
    for one in left:
        assert 0 < len(one.token_ids) <= 6
        again = replace(ask, seeds=(ask.seeds[one.sample],), begun=tuple(one.token_ids))
        (rest,) = samples(loaded.model, [again], draw, 8)
        assert [*one.token_ids, *rest.token_ids] == whole[one.sample].token_ids
        assert [*one.logprobs, *rest.logprobs] == pytest.approx(
            whole[one.sample].logprobs, abs=1e-5
        )


@pytest.mark.slow
def test_two_processes_have_each_their_own(tmp_path: Path, base: Path) -> None:
    work = oversampled(tmp_path, base, processes=2)
    launch(work)
    rollouts = table(work, "rollout")
    assert metric(work, "prompts") == [6, 4, 4, 4, 4]
    assert len({line["id"] for line in rollouts}) == len(rollouts) == 22 * 2
    for step in range(1, 6):
        used = [line for line in rollouts if line["step"] == step and line["left_out"] is None]
        assert len(used) == 4 * 2
    assert sum(metric(work, "carried_tokens")) > 0
