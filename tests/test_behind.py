"""Reinforcement one step behind: the curve of a sequential reference, whatever the timing, stopped or not, on any number of ranks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_rl import assert_same, launch, made, metric, number, table, weights
from training_parts import drawn_rows, fresh_folder, killed_after_saving, of_a_clock

from omr_runtime.engines.decode import Ask, Draw, OnSampled
from omr_runtime.engines.transformers import TransformersEngine
from omr_runtime.errors import RunError
from omr_runtime.models import load
from omr_runtime.store import ImageStore
from omr_runtime.train import buffer, rl, rollout
from omr_runtime.train.fill import Batch, one_round
from omr_runtime.train.loop import Trainer, open_accelerator
from omr_runtime.train.policy import Policy, open_policy
from omr_runtime.train.prompts import plan_prompts, prompts_of_step, prompts_of_update
from omr_runtime.train.rollout import Questions, Rollouts, roll_out
from omr_runtime.train.schedule import learning_rate
from omr_runtime.verify.asking import cascade_for
from omr_runtime.verify.reward import Reward
from omr_runtime.work import InputRows, Shards, Work
from omrlang.schema import Rl
from omrlang.types import (
    AdamW,
    Amount,
    Call,
    Cosine,
    Dapo,
    Fsdp,
    Grpo,
    Gspo,
    Lora,
    Overlong,
    RowSets,
    TokenTruncated,
    Watch,
    Zero,
)

TWO = Amount(value=2, unit="prompts")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = fresh_folder(tmp_path_factory.mktemp("base"))
    return folder


def behind(state: Path, base: Path, **changes: Any) -> Work:
    settings: dict[str, Any] = {"steps": 4, "behind": 1, "lr": Cosine(peak=1e-2)}
    return made(state, base, **settings | changes)


def assert_equal(found: Work, whole: Work) -> None:
    for name in ("rollout", "use"):
        assert table(found, name) == table(whole, name)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(found)[name]), name


def reference(work: Work, base: Path) -> tuple[list[Batch], dict[str, torch.Tensor]]:
    """One thing after another: each batch is drawn with the weights from before the last update, kept in a copy."""
    spec = work.stage.spec
    assert isinstance(spec, Rl)
    accelerator = open_accelerator(spec)
    loaded, older = (load(base, spec.precision, "cpu") for _ in range(2))
    assert loaded.model is not None
    trainer = Trainer(accelerator, loaded.model, spec)
    rows = drawn_rows(Path(work.state), 10)
    questions = Questions(rows, loaded, spec, ImageStore(Path(work.state)))
    prompts = plan_prompts([row["id"] for row in rows], questions.lengths(trainer), spec)
    rollouts = Rollouts(TransformersEngine(older, 64), shares=False)
    policy = open_policy(spec, trainer, loaded, questions.ask_of)
    batches: list[Batch] = []
    with Reward(cascade_for(work, spec.reward, spec.prompt, 1)) as reward:
        before = {name: tensor.clone() for name, tensor in trainer.weights()}
        for step in range(prompts.num_steps):
            rollouts.roller.update_weights(before.items())
            first = sum(batch.num_asked for batch in batches)
            members = prompts.take(first, first, prompts_of_step(spec))
            groups = roll_out(questions, members, step, rollouts, reward)
            batches.append(one_round(spec, trainer, members, groups))
            before = {name: tensor.clone() for name, tensor in trainer.weights()}
            rate = learning_rate(spec.lr, step, prompts.num_steps)
            policy.update(batches[-1].parts(prompts_of_update(spec)), rate)
    return batches, {name: tensor.clone() for name, tensor in trainer.weights()}


class Slow(TransformersEngine):
    """Draws what the engine draws and takes its time over it."""

    def roll(self, asks: Iterable[Ask], draw: Draw, done: OnSampled) -> None:
        time.sleep(0.5)
        super().roll(asks, draw, done)


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        (Gspo(clip=(3e-2, 4e-2)), {}),
        (Grpo(clip=(0.2, 0.2), kl=0.05), {"minibatch": TWO}),
        (Dapo(clip=(0.2, 0.28), overlong=Overlong(buffer=4)), {"rollout_correction": TokenTruncated(), "minibatch": TWO}),
    ],
    ids=["gspo", "grpo", "dapo"],
)  # fmt: skip
def test_it_equals_a_sequential_reference_whatever_the_timing(
    tmp_path: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: Any,
    changes: dict[str, Any],
) -> None:
    work = behind(tmp_path / "one", base, algorithm=algorithm, **changes)
    rl.train(work)
    again = behind(tmp_path / "again", base, algorithm=algorithm, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(rollout, "TransformersEngine", Slow)
        rl.train(again)
    assert_equal(again, work)
    batches, expected = reference(work, base)
    responses = [
        (step + 1, one.row["id"], one.index, one.response, one.scored.value, one.advantage)
        for step, batch in enumerate(batches)
        for _, group in sorted(batch.groups.items())
        for one in group
    ]
    keys = ("step", "row", "sample_index", "response", "reward", "advantage")
    assert [tuple(line[key] for key in keys) for line in table(work, "rollout")] == responses
    for name, tensor in weights(work).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_step_learns_while_the_next_is_drawn(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other to be under way: one after the other they would wait for ever."""
    drawing, learning, update = threading.Event(), threading.Event(), Policy.update

    class Meets(TransformersEngine):
        def roll(self, asks: Iterable[Ask], draw: Draw, done: OnSampled) -> None:
            if calls:
                drawing.set()
                assert learning.wait(60), "nothing was learned meanwhile"
            calls.append(1)
            super().roll(asks, draw, done)

    def meets(self: Policy, *given: Any) -> Any:
        learning.set()
        assert drawing.wait(60), "nothing was drawn meanwhile"
        return update(self, *given)

    calls: list[int] = []
    monkeypatch.setattr(rollout, "TransformersEngine", Meets)
    monkeypatch.setattr(Policy, "update", meets)
    rl.train(behind(tmp_path, base, steps=2))
    assert len(calls) == 2


def test_the_first_two_steps_draw_with_the_starting_weights(tmp_path: Path, base: Path) -> None:
    """So where nothing is learned in the first step, the second is that of a run which is not behind."""
    one, other = behind(tmp_path / "one", base), behind(tmp_path / "other", base, behind=0)
    still = behind(tmp_path / "still", base, behind=0, lr=Cosine(peak=0.0))
    for work in (one, other, still):
        rl.train(work)
    drawn = [[line["response"] for line in table(work, "rollout")] for work in (one, other, still)]
    assert drawn[0][:32] == drawn[2][:32]
    assert drawn[0][:16] == drawn[1][:16]
    assert drawn[0][16:32] != drawn[1][16:32]
    assert drawn[0][32:48] != drawn[2][32:48]


def test_the_record_says_who_drew(tmp_path: Path, base: Path) -> None:
    """Also of a batch that came out of a checkpoint."""
    work = behind(tmp_path, base)
    with killed_after_saving(2):
        rl.train(work)
    rl.train(work)
    for line in table(work, "rollout"):
        assert line["first_step"] == max(1, line["step"] - 1)
        older = line["step"] > 1
        assert line["carried_tokens"] == (line["num_tokens"] if older else 0)


def test_the_times_of_a_step_add_up(tmp_path: Path, base: Path) -> None:
    """In turn an engine is given weights, draws, and the step learns; behind, the drawing is beside the rest but for the first."""
    for name, ahead in (("turn", 0), ("behind", 1)):
        work = behind(tmp_path / name, base, behind=ahead)
        rl.train(work)
        parts = {
            part: metric(work, f"{part}_s")
            for part in ("push", "rollout", "update", "wait", "step")
        }
        for step in range(4):
            push, roll, update, wait, whole = (parts[part][step] for part in parts)
            told = push + update + wait + (roll if not ahead or step == 0 else 0.0)
            assert told == pytest.approx(whole, rel=0.1, abs=0.05)
        assert (parts["push"][2] > 0) == bool(ahead), "its own weights need not be pushed"


def test_the_ratio_is_to_who_drew(tmp_path: Path, base: Path) -> None:
    """One update of a batch moves the policy from its rollouts: the clip acts from the second step on. With a correction the
    ratio is to the trainer's own, and the weight has what lies between."""
    work = behind(tmp_path / "ratio", base, algorithm=Gspo(clip=(3e-4, 4e-4)))
    rl.train(work)
    clipped = metric(work, "clip_fraction")
    assert clipped[0] == 0
    assert min(clipped[1:3]) > 0
    assert min(metric(work, "rollout_kl")[1:]) > 1e-5
    apart = behind(tmp_path / "apart", base, rollout_correction=TokenTruncated())
    rl.train(apart)
    assert max(metric(apart, "clip_fraction")) == 0
    found = metric(apart, "rollout_weight")
    assert found[0] == pytest.approx(1.0, abs=1e-5)
    assert all(abs(one - 1.0) > 1e-4 for one in found[1:])


def test_it_learns_and_tells_its_times(tmp_path: Path, base: Path) -> None:
    work = behind(tmp_path, base, steps=12, group=8)
    rl.train(work)
    reward = metric(work, "reward")
    assert reward[-1] > reward[0] + 0.15
    for name in ("push_s", "rollout_s", "reward_s", "update_s", "wait_s", "step_s"):
        assert len(metric(work, name)) == 12


@pytest.mark.parametrize("adapter", [None, Lora(rank=4, alpha=8, dropout=0.1)], ids=["whole", "adapters"])  # fmt: skip
def test_a_stopped_run_goes_on_exactly(tmp_path: Path, base: Path, adapter: Lora | None) -> None:
    """With validation between, which has the engine meanwhile."""
    watch = Watch(every=2, rows=RowSets(names=("held_out",)), score=number(Call(fn="format_score")))
    found = []
    for name in ("whole", "stopped"):
        state = tmp_path / name
        work = behind(state, base, steps=5, minibatch=TWO, adapter=adapter, watch=watch)
        held_out = state / "store" / "held_out"
        Shards(held_out).write(0, {"row": drawn_rows(state, 4, seed=20)})
        entry = InputRows(name="held_out", fingerprint="held_out", folder=str(held_out))
        found.append(work.model_copy(update={"others": (entry,)}))
    whole, stopped = found
    rl.train(whole)
    for _ in range(2):
        with killed_after_saving(1, 3):
            rl.train(stopped)
    assert max(line["step"] for line in table(stopped, "rollout")) == 3
    rl.train(stopped)
    assert_equal(stopped, whole)
    figures = [
        [line for line in table(work, "metric") if not of_a_clock(line["name"])]
        for work in (stopped, whole)
    ]
    assert figures[0] == figures[1]
    assert not [thread for thread in threading.enumerate() if thread.name == "rollouts"]


def test_a_buffer_comes_back_on_another_number_of_ranks(tmp_path: Path, base: Path) -> None:
    work = behind(tmp_path, base)
    (first, *_), _ = reference(work, base)
    spec = work.stage.spec
    assert isinstance(spec, Rl)
    questions = Questions(drawn_rows(tmp_path, 10), load(base), spec, ImageStore(tmp_path))
    for rank in range(2):
        mine = {place: group for place, group in first.groups.items() if place % 2 == rank}
        buffer.write(tmp_path, rank, 3, Batch(first.members, mine, [], 4, 1, first.num_teaching))
    for ranks in (1, 2, 3):
        groups = {}
        for rank in range(ranks):
            found = buffer.read(tmp_path, rank, ranks, questions)
            assert found is not None
            assert (found[0], found[1].members) == (3, first.members)
            groups |= found[1].groups
        for place, group in first.groups.items():
            for one, other in zip(group, groups[place], strict=True):
                same = (other.token_ids, other.logprobs, other.scored, other.advantage, other.name)
                assert same == (one.token_ids, one.logprobs, one.scored, one.advantage, one.name)
                assert other.ask.input_ids == one.ask.input_ids


def test_what_goes_wrong_in_the_thread_is_raised(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_all, calls = rollout.draw_all, []

    def failing(*given: Any) -> Any:
        calls.append(threading.current_thread())
        if len(calls) == 3:
            raise RunError("the engine is gone")
        return draw_all(*given)

    monkeypatch.setattr(rollout, "draw_all", failing)
    with pytest.raises(RunError, match="the engine is gone"):
        rl.train(behind(tmp_path, base))
    assert threading.main_thread() not in calls


def test_what_is_under_way_is_left_when_the_update_fails(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, drawn = threading.Event(), []

    class Endless(TransformersEngine):
        def roll(self, asks: Iterable[Ask], draw: Draw, done: OnSampled) -> None:
            def one(found: Any) -> None:
                if len(drawn) >= 16:
                    begun.set()
                    time.sleep(0.2)
                drawn.append(found)
                done(found)

            super().roll(asks, draw, one)

    def fails(*_: Any) -> None:
        assert begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(rollout, "TransformersEngine", Endless)
    monkeypatch.setattr(rl, "_figures", fails)
    with pytest.raises(KeyboardInterrupt):
        rl.train(behind(tmp_path, base))
    assert len(drawn) < 2 * 16
    assert not [thread for thread in threading.enumerate() if thread.name == "rollouts"]


def test_only_one_thread_tells_other_ranks_anything(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    for name in ("total", "gather", "wait", "weights"):
        real = getattr(Trainer, name)

        def told(self: Trainer, *given: Any, _real: Any = real) -> Any:
            threads.add(threading.current_thread())
            return _real(self, *given)

        monkeypatch.setattr(Trainer, name, told)
    rl.train(behind(tmp_path, base))
    assert threads == {threading.main_thread()}


@pytest.mark.slow
@pytest.mark.parametrize("sharding", [None, Zero(stage=3), Fsdp()], ids=str)
def test_two_processes_equal_one(tmp_path: Path, base: Path, sharding: Zero | Fsdp | None) -> None:
    settings: dict[str, Any] = {
        "minibatch": TWO,
        "algorithm": Grpo(clip=(0.2, 0.2)),
        "optimizer": AdamW(eps=1e-4),
    }
    one = behind(tmp_path / "one", base, **settings)
    rl.train(one)
    two = behind(tmp_path / "two", base, processes=2, sharding=sharding, **settings)
    launch(two)
    assert_same(one, two)
