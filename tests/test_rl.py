"""Reinforcement learning end to end on a tiny vision-language model: records, resumption, two processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from training_parts import PROMPT, drawn_rows, fresh_folder, killed_after_saving

from omr_runtime.errors import RunError
from omr_runtime.models import load
from omr_runtime.train import rl, rollout
from omr_runtime.train.advantage import group_advantages, penalty
from omr_runtime.train.rollout import OVERLONG, Drawn, shaped
from omr_runtime.verify.reward import Scored
from omr_runtime.work import InputRows, Shards, Work
from omrlang.plan import PlanStage
from omrlang.schema import Rl
from omrlang.types import (
    AdamW,
    Amount,
    Ascending,
    Binary,
    Call,
    Checkpoint,
    Col,
    Constant,
    Dapo,
    Descending,
    DrGrpo,
    ExprNode,
    Fsdp,
    Grpo,
    Gspo,
    Lit,
    Lora,
    OpenAI,
    Overlong,
    RowExpr,
    Rule,
    Sharding,
    TokenTruncated,
    TrainedModel,
    Transformers,
    Zero,
)

# An untrained model is never right, so it is rewarded for what it can do: responses of few letters.
LETTERS: ExprNode = Call(fn="len", args=(Col(name="response"),))
LENGTH: ExprNode = Binary(op="/", left=LETTERS, right=Lit(value=20))
FORMAT: ExprNode = Call(fn="format_score")
REWARD: ExprNode = Binary(op="-", left=FORMAT, right=LENGTH)


def number(tree: ExprNode) -> RowExpr:
    return RowExpr(text="reward", type="number", tree=tree, rules=(Rule(name="reward", tree=tree),))


def rl_spec(**changes: Any) -> Rl:
    """Settings of a short run, with ``changes``."""
    settings: dict[str, Any] = {
        "name": "reasoner",
        "seed": 7,
        "rows": "puzzles",
        "model": TrainedModel(stage="base"),
        "prompt": PROMPT,
        "algorithm": Gspo(clip=(3e-4, 4e-4)),
        "reward": number(REWARD),
        "group": 4,
        "batch": Amount(value=4, unit="prompts"),
        "steps": 4,
        "lr": Constant(peak=1e-2),
        "temperature": 1.0,
        "max_prompt": 64,
        "max_response": 8,
        "precision": "fp32",
        "engine": Transformers(batch=64),
        "checkpoint": Checkpoint(every=1, keep=1),
    }
    return Rl.model_validate(settings | changes)


def rl_work(state: Path, base: Path, rows: Sequence[dict[str, Any]], spec: Rl) -> Work:
    """A work order over ``rows``; the model to start from is the folder ``base``."""
    source = state / "store" / "rows"
    if not source.exists():
        Shards(source).write(0, {"row": list(rows)})
    mark = f"fp_{spec.name}"
    stage = PlanStage(
        address=f"rl.{spec.name}", name=spec.name, spec=spec, fingerprint=mark, parents=("puzzles",), action="new",
    )  # fmt: skip
    (state / "work").mkdir(parents=True, exist_ok=True)
    return Work(
        stage=stage,
        seed=spec.seed,
        base=str(state),
        state=str(state),
        out=str(state / "store" / mark),
        progress=str(state / "work" / f"{mark}.progress"),
        inputs=(InputRows(name="puzzles", fingerprint="rows", folder=str(source)),),
        model_folders={"base": str(base)},
    )


def table(work: Work, name: str) -> list[dict[str, Any]]:
    """All lines of a table, over all shards."""
    shards = Shards(work.out).read()
    files = [shard.files[name] for shard in shards if name in shard.files]
    return [line for file in files for line in pq.read_table(file).to_pylist()]


def metric(work: Work, name: str) -> list[float]:
    return [line["value"] for line in table(work, "metric") if line["name"] == name]


def weights(work: Work) -> dict[str, torch.Tensor]:
    model = load(Path(work.state) / "models" / work.stage.fingerprint).model
    assert model is not None
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = fresh_folder(tmp_path_factory.mktemp("base"))
    return folder


def made(state: Path, base: Path, num: int = 10, **changes: Any) -> Work:
    """A work order that has not been run."""
    return rl_work(state, base, drawn_rows(state, num), rl_spec(**changes))


def test_a_run_records_every_rollout_and_moves_the_weights(tmp_path: Path, base: Path) -> None:
    work = made(tmp_path, base)
    rl.train(work)
    rollouts = table(work, "rollout")
    assert len(rollouts) == 4 * 4 * 4
    assert len({line["id"] for line in rollouts}) == len(rollouts)
    assert {line["sample_index"] for line in rollouts} >= {0, 1, 2, 3}
    for line in rollouts:
        expected = json.loads(line["parts"])["format_score"] - len(line["response"]) / 20
        assert line["reward"] == pytest.approx(expected)
        assert line["mean_logprob"] < 0
    for step in range(1, 5):
        groups: dict[str, list[dict[str, Any]]] = {}
        for line in rollouts:
            if line["step"] == step:
                groups.setdefault(f"{line['row']} {line['sample_index'] // 4}", []).append(line)
        for group in groups.values():
            found = group_advantages([line["reward"] for line in group]).values
            assert [line["advantage"] for line in group] == pytest.approx(found)
    uses = table(work, "use")
    assert {(line["row"], line["step"]) for line in uses} == {
        (line["row"], line["step"]) for line in rollouts
    }
    before = load(base).model
    assert before is not None
    moved = [(before.state_dict()[k] - v).abs().max().item() for k, v in weights(work).items()]
    assert max(moved) > 1e-3
    summary = json.loads((Path(work.out) / "done.json").read_text())
    assert summary["num_in"] == 10
    assert not (tmp_path / "checkpoints" / work.stage.fingerprint).exists()


def test_it_learns_what_is_rewarded(tmp_path: Path, base: Path) -> None:
    work = made(tmp_path, base, steps=12, group=8)
    rl.train(work)
    reward = metric(work, "reward")
    assert len(reward) == 12
    assert reward[-1] > reward[0] + 0.2
    for name in ("response_tokens", "clip_fraction", "grad_norm", "reward_s"):
        assert len(metric(work, name)) == 12
    reads = [flat < 4 for flat in metric(work, "zero_variance_groups")]
    for name in ("entropy", "rollout_kl"):
        assert len(metric(work, name)) == sum(reads), "where nothing is read nothing is known"
    assert max(metric(work, "rollout_kl")) < 1e-6
    assert max(metric(work, "clip_fraction")) == 0


def test_long_prompts_are_dropped_with_a_verdict(tmp_path: Path, base: Path) -> None:
    rows = drawn_rows(tmp_path, 8)
    rows[2] = {**rows[2], "question": rows[2]["question"] + "?" * 100}
    work = rl_work(tmp_path, base, rows, rl_spec(steps=2))
    rl.train(work)
    assert table(work, "dropped") == [
        {"row": "row0002", "source": "puzzles", "reason": "prompt_too_long"}
    ]
    (verdict,) = table(work, "verdict")
    assert (verdict["row"], verdict["rule"], verdict["ok"]) == ("row0002", "prompt_too_long", False)
    assert "row0002" not in {line["row"] for line in table(work, "rollout")}


def test_no_prompt_at_all_is_an_error(tmp_path: Path, base: Path) -> None:
    with pytest.raises(RunError, match="longer than max_prompt, 5 tokens"):
        rl.train(made(tmp_path, base, max_prompt=5))


def test_a_server_cannot_roll_out(tmp_path: Path, base: Path) -> None:
    with pytest.raises(RunError, match="weights can be replaced"):
        rl.train(made(tmp_path, base, engine=OpenAI(url="http://localhost:1/v1")))


def test_a_stopped_run_goes_on_exactly(tmp_path: Path, base: Path) -> None:
    whole = made(tmp_path / "whole", base, steps=5, minibatch=Amount(value=2, unit="prompts"))
    rl.train(whole)

    stopped = made(tmp_path / "stopped", base, steps=5, minibatch=Amount(value=2, unit="prompts"))
    with killed_after_saving(3):
        rl.train(stopped)
    assert max(line["step"] for line in table(stopped, "rollout")) == 3
    rl.train(stopped)
    for name in ("rollout", "use"):
        assert table(stopped, name) == table(whole, name)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(stopped)[name])


def test_several_updates_of_a_batch_clip(tmp_path: Path, base: Path) -> None:
    work = made(tmp_path, base, minibatch=Amount(value=1, unit="prompts"))
    rl.train(work)
    assert max(metric(work, "clip_fraction")) > 0


@pytest.mark.parametrize(
    "algorithm",
    [
        Grpo(clip=(0.2, 0.2), kl=0.05),
        DrGrpo(clip=(0.2, 0.2), length=16, kl=0.05, kl_estimator="k2", entropy=0.01),
        Dapo(clip=(0.2, 0.28), overlong=Overlong(buffer=4, factor=1.0)),
    ],
)
def test_other_algorithms_run(tmp_path: Path, base: Path, algorithm: Grpo | DrGrpo | Dapo) -> None:
    work = made(tmp_path, base, algorithm=algorithm, steps=3)
    rl.train(work)
    assert len(metric(work, "loss")) == 3
    assert (max(metric(work, "kl")) > 0) == bool(algorithm.kl)
    for line in table(work, "rollout"):
        parts = json.loads(line["parts"])
        over = (line["num_tokens"] - 4) / 4 if isinstance(algorithm, Dapo) else None
        assert parts.get(OVERLONG) == (None if over is None else -max(0.0, over))


def tell_half(patch: pytest.MonkeyPatch) -> None:
    """The engine tells half of each token's probability."""
    draw_all = rollout.draw_all

    def halved(*given: Any) -> list[Drawn]:
        drawn = draw_all(*given)
        for one in drawn:
            one.sampled.logprobs[:] = [x - math.log(2) for x in one.sampled.logprobs]
        return drawn

    patch.setattr(rollout, "draw_all", halved)


def test_what_the_engine_draws_is_weighed_and_told(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that tells half of each probability: its tokens count twice, or what the cap allows."""
    work = made(tmp_path / "same", base, steps=2, rollout_correction=TokenTruncated())
    rl.train(work)
    assert metric(work, "rollout_weight") == pytest.approx([1.0, 1.0], abs=1e-4)
    assert metric(work, "rollout_weight_capped") == [0.0, 0.0]
    tell_half(monkeypatch)
    for cap, mean, share in ((4.0, 2.0, 0.0), (1.5, 1.5, 1.0)):
        changes = {"minibatch": Amount(value=2, unit="prompts")} if cap == 4 else {}
        spec = TokenTruncated(cap=cap)
        work = made(tmp_path / f"{cap}", base, steps=2, rollout_correction=spec, **changes)
        rl.train(work)
        assert metric(work, "rollout_weight") == pytest.approx([mean] * 2, abs=1e-3)
        assert metric(work, "rollout_weight_capped") == pytest.approx([share] * 2)
    plain = made(tmp_path / "plain", base, steps=1)
    rl.train(plain)
    assert not metric(plain, "rollout_weight")


def test_groups_that_are_not_read_dilute_no_mean(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that tells half of each probability: each token that is read is as far from the trainer and counts twice."""
    tell_half(monkeypatch)
    # Responses of one token are often as long as each other.
    settings: dict[str, Any] = {"group": 2, "max_response": 1, "lr": Constant(peak=1e-6)}
    work = made(tmp_path, base, rollout_correction=TokenTruncated(cap=4.0), **settings)
    rl.train(work)
    assert any(0 < flat < 4 for flat in metric(work, "zero_variance_groups"))
    assert metric(work, "rollout_kl")
    for found in metric(work, "rollout_kl"):
        assert found == pytest.approx(1 - math.log(2), abs=1e-3)
    for found in metric(work, "rollout_weight"):
        assert found == pytest.approx(2.0, abs=1e-3)


def test_groups_without_spread_and_unknown_rewards_are_left_out() -> None:
    assert not group_advantages([1.0, 1.0, 1.0]).has_spread
    assert not group_advantages([None, 1.0]).has_spread
    found = group_advantages([1.0, None, 0.0])
    assert found.values[1] is None
    assert found.values[0] == pytest.approx(0.5 / (0.5**0.5 + 1e-4))
    soft = Dapo(clip=(0.2, 0.28), overlong=Overlong(buffer=4))
    assert penalty(6, 8, soft) == pytest.approx(-0.5)
    assert penalty(8, 8, Gspo(clip=(0.1, 0.1))) is None
    assert shaped(Scored(1.0, {OVERLONG: -0.5}, None)) == pytest.approx(0.5)
    assert shaped(Scored(None, {OVERLONG: -0.5}, None)) is None


def launch(work: Work) -> None:
    """Run the stage by torchrun, as the driver does."""
    from omr_runtime.train.launch import command

    path = Path(work.state) / "work.json"
    path.write_text(work.model_dump_json())
    argv, env = command(work, path)
    root = Path(__file__).parents[1]
    paths = {"PYTHONPATH": f"{root}:{root / 'runtime'}", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(argv, env=os.environ | paths | env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:6000]


def assert_same(one: Work, two: Work) -> None:
    """The rollouts and rewards of every step, and the weights but for the order of their sums."""
    key = ("step", "row", "sample_index", "response", "reward")
    same = [
        sorted([tuple(line[k] for k in key) for line in table(w, "rollout")]) for w in (one, two)
    ]
    assert same[0] == same[1]
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], atol=2e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, Lora(rank=4, alpha=8)], ids=["whole", "adapters"])
@pytest.mark.parametrize("sharding", [None, Zero(stage=2), Zero(stage=3), Fsdp()], ids=str)
def test_two_processes_equal_one(
    tmp_path: Path, base: Path, sharding: Sharding | None, adapter: Lora | None
) -> None:
    algorithm = Grpo(clip=(0.2, 0.2), kl=0.01)
    # Under Adam's usual eps a gradient that is nothing but rounding becomes a whole step, up or down as the sum was made.
    settings: dict[str, Any] = {
        "steps": 3,
        "minibatch": Amount(value=2, unit="prompts"),
        "algorithm": algorithm,
        "optimizer": AdamW(eps=1e-4),
        "adapter": adapter,
    }
    one = made(tmp_path / "one", base, **settings)
    rl.train(one)
    two = made(tmp_path / "two", base, processes=2, sharding=sharding, **settings)
    launch(two)
    assert_same(one, two)


def test_a_curriculum_asks_easy_prompts_first_and_settles_ties_by_the_seed() -> None:
    ids, lengths = [f"r{k}" for k in range(8)], [1] * 8
    rates = [0.5, None, 0.1, 0.9, 0.5, 0.5, None, 0.1]
    by = number(Call(fn="pass_rate", stages=("probe",)))

    def asked(spec: Rl) -> list[list[int]]:
        given = [rl.plan_prompts(ids, lengths, spec, rates).take(k, k, 4) for k in (0, 4, 8, 12)]
        prompts = rl.plan_prompts(ids, lengths, spec, rates)
        assert given == [prompts.take(k, k, 4) for k in (0, 4, 8, 12)]
        return [[member.row for member in step] for step in given]

    up = asked(rl_spec(order=Ascending(by=by)))
    down = asked(rl_spec(order=Descending(by=by)))
    assert [[rates[row] for row in step] for step in up[:2]] == [
        [0.1, 0.1, 0.5, 0.5],
        [0.5, 0.9, None, None],
    ]
    assert [[rates[row] for row in step] for step in down[:2]] == [
        [0.9, 0.5, 0.5, 0.5],
        [0.1, 0.1, None, None],
    ]
    assert up[2:4] == up[:2], "the same in every epoch"
    other = asked(rl_spec(order=Ascending(by=by), seed=8))
    assert other != up
    assert sorted(other[0] + other[1]) == sorted(up[0] + up[1])


def test_an_order_is_asked_of_the_rows(tmp_path: Path, base: Path) -> None:
    length = number(Call(fn="len", args=(Col(name="question"),)))
    work = made(tmp_path, base, order=Descending(by=length), steps=2)
    rl.train(work)
    questions = {row["id"]: row["question"] for row in drawn_rows(tmp_path, 10)}
    steps: dict[int, set[str]] = {}
    for line in table(work, "rollout"):
        steps.setdefault(line["step"], set()).add(questions[line["row"]])
    first, second = (max(map(len, steps[step])) for step in sorted(steps))
    assert min(map(len, steps[min(steps)])) >= second
    assert first == max(map(len, questions.values()))


def test_an_order_by_the_pass_rate_of_an_earlier_filter(tmp_path: Path, base: Path) -> None:
    rows = [row | {"content": f"c{place}"} for place, row in enumerate(drawn_rows(tmp_path, 8))]
    tally = [
        {"content": row["content"], "num_kept": place, "num_judged": 8}
        for place, row in enumerate(reversed(rows))
    ]
    probe = tmp_path / "store" / "probe"
    Shards(probe).write(0, {"tally": tally})
    by = number(Call(fn="pass_rate", stages=("probe",)))
    work = rl_work(tmp_path, base, rows, rl_spec(order=Ascending(by=by), steps=2))
    others = (InputRows(name="probe", fingerprint="probe", folder=str(probe)),)
    rl.train(work.model_copy(update={"others": others}))
    rates = {line["content"]: line["num_kept"] for line in tally}
    by_row = {row["id"]: rates[row["content"]] for row in rows}
    steps = [(line["step"], by_row[line["row"]]) for line in table(work, "rollout")]
    first = {rate for step, rate in steps if step == min(steps)[0]}
    later = {rate for step, rate in steps if step > min(steps)[0]}
    assert max(first) <= min(later)
