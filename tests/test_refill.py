"""Dynamic sampling: which groups fill a batch, what is left out and why, and that a stopped run goes on at its prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_rl import made, metric, number, rl_spec, table, weights
from training_parts import fresh_folder, killed_after_saving

from omr_runtime.engines.decode import Ask
from omr_runtime.errors import RunError
from omr_runtime.train import rl
from omr_runtime.train.advantage import group_advantages
from omr_runtime.train.fill import Batch, Group, fill
from omr_runtime.train.prompts import Member, plan_prompts
from omr_runtime.train.rollout import Rollout
from omr_runtime.verify.reward import Scored
from omrlang.types import Amount, Binary, Call, Col, Dapo, ExprNode, Lit, OnSpread, Overlong

Rewards = Sequence[float | None]
ALIKE, SPREAD, UNKNOWN = [1.0, 1.0], [0.0, 1.0], [None, 1.0]


class Ranks:
    """One process of several whose verdicts are known beforehand."""

    def __init__(self, rank: int = 0, verdicts: Sequence[Sequence[str | None]] = ()) -> None:
        self.rank, self.num_ranks = rank, max(1, len(verdicts))
        self.verdicts = verdicts

    def gather(self, value: Any) -> list[Any]:
        if not self.verdicts:
            return [value]
        assert value == self.verdicts[self.rank]
        return list(self.verdicts)


def dapo(generate: int | None = None, **refill: Any) -> Dapo:
    amount = None if generate is None else Amount(value=generate, unit="prompts")
    own = OnSpread(**{"of": "reward", "generate": amount, **refill})
    return Dapo(clip=(0.2, 0.28), refill=own)


def group_of(row: int, rewards: Rewards, penalties: Rewards | None = None) -> Group:
    """Rollouts with these rewards."""
    losses = penalties or [0.0] * len(rewards)
    shaped = [None if r is None else r + (p or 0.0) for r, p in zip(rewards, losses, strict=True)]
    found = group_advantages(shaped)
    return [
        Rollout({"id": f"r{row}"}, k, Ask([1], ()), [1], [-1.0], True, "", Scored(reward, {}, None), a, not found.has_spread)
        for k, (reward, a) in enumerate(zip(rewards, found.values, strict=True))
    ]  # fmt: skip


def filled(scripted: Sequence[Rewards], algorithm: Dapo, batch: int = 2) -> tuple[Batch, list[int]]:
    """The batch out of prompts whose rewards are written down, and how many were asked in each round."""
    rounds: list[int] = []

    def take(asked: int, count: int) -> Sequence[Member]:
        rounds.append(count)
        return [Member(k % len(scripted)) for k in range(asked, asked + count)]

    def roll(members: Sequence[Member]) -> Sequence[Group]:
        return [group_of(member.row, scripted[member.row]) for member in members]

    spec = rl_spec(algorithm=algorithm, batch=Amount(value=batch, unit="prompts"), group=2)
    return fill(spec, Ranks(), 1, take, roll), rounds


def left(batch: Batch) -> list[tuple[str, str]]:
    return [(group[0].row["id"], reason) for group, reason in batch.left_out]


def test_groups_without_spread_give_way_to_later_prompts() -> None:
    batch, rounds = filled([ALIKE, SPREAD, UNKNOWN, ALIKE, SPREAD, SPREAD], dapo(3))
    assert [member.row for member in batch.members] == [1, 4]
    assert left(batch) == [
        ("r0", "no_spread"), ("r2", "reward_unknown"), ("r3", "no_spread"), ("r5", "batch_full"),
    ]  # fmt: skip
    assert rounds == [3, 3]
    assert (batch.num_asked, batch.num_rounds, batch.num_teaching) == (6, 2, 3)


def test_a_round_is_as_large_as_the_batch_unless_it_says_otherwise() -> None:
    batch, rounds = filled([SPREAD, SPREAD, ALIKE], dapo())
    assert rounds == [2]
    assert not batch.left_out


def test_without_refill_every_group_is_in_the_batch() -> None:
    batch, rounds = filled([ALIKE, SPREAD, SPREAD], Dapo(clip=(0.2, 0.28)))
    assert rounds == [2]
    assert [member.row for member in batch.members] == [0, 1]


def test_a_batch_that_cannot_be_filled_says_how_far_it_came() -> None:
    with pytest.raises(RunError, match="of 8 prompts in 4 rounds 1 gave rollouts that differ"):
        filled([ALIKE] * 7 + [SPREAD], dapo(2, rounds=4))


def test_right_answers_of_unequal_length_have_spread_in_the_shaped_reward_alone() -> None:
    """DAPO's condition is on the answers: its penalty for length does not make a group of right ones worth learning from."""
    spec = rl_spec(batch=Amount(value=1, unit="prompts"), group=2)
    rolled = [group_of(0, [1.0, 1.0], [0.0, -0.5]), group_of(1, SPREAD)]
    for of, teaching in (("reward", 0), ("shaped_reward", 1)):
        own = spec.model_copy(update={"algorithm": dapo(1, of=of, rounds=2)})
        batch = fill(
            own, Ranks(), 1, lambda asked, n: [Member(asked)], lambda m: [rolled[m[0].row]]
        )
        assert [member.row for member in batch.members] == [1 - teaching]


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_agree_on_the_batch_and_keep_their_own_groups(rank: int) -> None:
    """Prompts 0 to 3, every other one on each rank; 0 teaches nothing, 1 and 2 fill the batch, 3 comes too late."""
    rewards = [ALIKE, SPREAD, SPREAD, SPREAD]
    verdicts = [["no_spread", None], [None, None]]
    spec = rl_spec(algorithm=dapo(4), batch=Amount(value=2, unit="prompts"), group=2)
    batch = fill(
        spec,
        Ranks(rank, verdicts),
        1,
        lambda asked, n: [Member(k) for k in range(n)],
        lambda members: [group_of(member.row, rewards[member.row]) for member in members],
    )
    assert [member.row for member in batch.members] == [1, 2]
    own = {place: group[0].row["id"] for place, group in batch.groups.items()}
    assert own == ({1: "r2"} if rank == 0 else {0: "r1"})
    assert left(batch) == [("r0", "no_spread")] if rank == 0 else [("r3", "batch_full")]


# ---- the stream of prompts -------------------------------------------------------------------------------------------


def test_the_stream_goes_on_over_epochs_and_repeats_are_drawn_anew() -> None:
    prompts = plan_prompts([f"r{k}" for k in range(3)], [1] * 3, rl_spec())
    whole = prompts.take(0, 0, 9)
    assert [sorted(m.row for m in whole[k : k + 3]) for k in (0, 3, 6)] == [[0, 1, 2]] * 3
    assert [prompts.take(0, k, 1)[0] for k in range(9)] == list(whole)
    assert {m.repeat for m in whole[6:]} == {2}
    assert {m.repeat for m in prompts.take(6, 6, 3)} == {0}


def test_a_run_counted_in_epochs_ends_with_a_smaller_step() -> None:
    spec = rl_spec(steps=None, epochs=1.5)
    prompts = plan_prompts([f"r{k}" for k in range(6)], [1] * 6, spec)
    assert prompts.length == 9
    assert prompts.num_steps == 3
    assert len(prompts.take(8, 8, 4)) == 1


# ---- a real run ------------------------------------------------------------------------------------------------------

# About half of what an untrained model writes is longer than that, so half of the groups of two have spread.
SHORT: ExprNode = Binary(
    op="<", left=Call(fn="len", args=(Col(name="response"),)), right=Lit(value=23)
)
REWARD = number(Binary(op="*", left=SHORT, right=Lit(value=1)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = fresh_folder(tmp_path_factory.mktemp("base"))
    return folder


def settings(**changes: Any) -> dict[str, Any]:
    overlong = Overlong(buffer=4, factor=1.0)
    algorithm = dapo(3).model_copy(update={"overlong": overlong})
    return {"algorithm": algorithm, "reward": REWARD, "group": 2, "steps": 4, "lr": {"kind": "constant", "peak": 1e-3}, **changes}  # fmt: skip


def test_a_run_fills_every_batch_and_records_what_it_left_out(tmp_path: Path, base: Path) -> None:
    work = made(tmp_path, base, **settings())
    rl.train(work)
    rollouts = table(work, "rollout")
    for step in range(1, 5):
        own = [line for line in rollouts if line["step"] == step]
        used = [line for line in own if line["left_out"] is None]
        assert len(used) == 4 * 2
        assert len(own) % (3 * 2) == 0
        assert {line["left_out"] for line in own} <= {None, "no_spread", "batch_full"}
        for line in own:
            assert "overlong" in json.loads(line["parts"])
    unused = [line for line in rollouts if line["left_out"]]
    assert any(line["left_out"] == "no_spread" for line in unused)
    assert len({line["id"] for line in rollouts}) == len(rollouts)
    asked, shares = metric(work, "prompts"), metric(work, "spread_share")
    assert sum(asked) * 2 == len(rollouts)
    summary = json.loads((Path(work.out) / "done.json").read_text())
    assert summary["metrics"]["prompts"] == sum(asked)
    teaching = sum(a * s for a, s in zip(asked, shares, strict=True))
    assert summary["spread_share"] == pytest.approx(teaching / sum(asked))


def test_a_stopped_run_goes_on_at_its_prompt(tmp_path: Path, base: Path) -> None:
    whole, stopped = (made(tmp_path / name, base, **settings()) for name in ("whole", "stopped"))
    rl.train(whole)
    with killed_after_saving(2):
        rl.train(stopped)
    rl.train(stopped)
    assert table(stopped, "rollout") == table(whole, "rollout")
    assert metric(stopped, "prompts") == metric(whole, "prompts")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(stopped)[name])
