"""What a plan says of rollouts: those that dynamic sampling generates besides, by a share that is assumed, declared or
measured, and what checkpoints take on disk."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.compiler import load
from omrlang.estimate.memory import Job, flips, measure
from omrlang.plan import Costs, Plan
from omrlang.planning import make_plan
from omrlang.render import render
from omrlang.types import Shape

RECIPE = """omr 1

use std.formats
use std.models

source questions from jsonl("questions.jsonl") { rows = 10_000 }

source held_out from jsonl("held_out.jsonl") { rows = 500 }

rl reasoner from questions with models.smollm2_135m {
  prompt       = formats.think_answer
  algorithm    = dapo(clip = [0.2, 0.28]REFILL)
  reward       = answer_matches
  group        = 8
  batch        = 32 prompts
  minibatch    = 8 prompts
  steps        = 10
  lr           = constant(1e-6)
  temperature  = 1
  max_prompt   = 512
  max_response = 512
  REST
}
"""
DAPO = "dapo(clip = [0.2, 0.28]REFILL)"
BATCHES = 10 * 32 * 8


def planned(folder: Path, refill: str = "", rest: str = "", algorithm: str = "") -> Plan:
    path = folder / "recipe.omr"
    given = f", refill = {refill}" if refill else ""
    text = RECIPE.replace(DAPO, algorithm or DAPO)
    path.write_text(text.replace("REFILL", given).replace("REST", rest))
    recipe, found = load(path)
    assert recipe is not None, render(found)
    return make_plan(recipe, folder / "state", path)


def costs(folder: Path, refill: str = "", rest: str = "", algorithm: str = "") -> Costs:
    found = planned(folder, refill, rest, algorithm).stage("reasoner").costs
    assert found is not None
    return found


def test_without_refill_every_rollout_is_learned_from(tmp_path: Path) -> None:
    found = costs(tmp_path)
    assert found.extra["rollouts"] == found.rows_out
    assert found.rows_out.mid == BATCHES
    assert "rollouts_left_out" not in found.extra


def test_an_assumed_share_gives_a_range(tmp_path: Path) -> None:
    found = costs(tmp_path, "on_spread(reward)")
    rollouts, more = found.extra["rollouts"], found.extra["rollouts_left_out"]
    assert (rollouts.lo, rollouts.mid, rollouts.hi) == (2 * BATCHES, 2 * BATCHES, 5 * BATCHES)
    assert rollouts.origin == more.origin == "assumed"
    assert (more.lo, more.hi) == (BATCHES, 4 * BATCHES)
    assert found.rows_out.mid == BATCHES
    asked = next(item for item in found.asked if item.what == "answer_matches")
    assert asked.times.mid == rollouts.mid, "all of them are scored"


def test_the_table_has_what_is_learned_from_and_what_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tmp_path, "on_spread(reward)")
    state = str(tmp_path / "state")
    assert main(["plan", str(tmp_path / "recipe.omr"), "--state", state]) in (0, 3)
    assert "2,560 of 5,120" in " ".join(capsys.readouterr().out.split())


def test_a_declared_share_and_larger_rounds(tmp_path: Path) -> None:
    found = costs(tmp_path, "on_spread(reward, generate = 96)", "assume { spread = 30% .. 50% }")
    rollouts = found.extra["rollouts"]
    assert (rollouts.lo, rollouts.hi) == (3 * BATCHES, 6 * BATCHES)
    assert rollouts.origin == "declared"


def test_no_more_than_the_rounds_that_are_allowed(tmp_path: Path) -> None:
    found = costs(tmp_path, "on_spread(reward, rounds = 3)", "assume { spread = 1% }")
    assert found.extra["rollouts"].mid == 3 * BATCHES


def test_a_measured_share_is_used(tmp_path: Path) -> None:
    plan = planned(tmp_path, "on_spread(reward)")
    mark = plan.stage("reasoner").fingerprint
    record = {"name": "reasoner", "kind": "rl", "status": "done", "spread_share": 0.25}
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "index.json").write_text(json.dumps({"stages": {mark: record}}))
    share = costs(tmp_path, "on_spread(reward)").extra["spread_share"]
    assert (share.mid, share.origin) == (0.25, "measured")


def test_generation_costs_more_and_training_does_not(tmp_path: Path) -> None:
    plain, refilled = costs(tmp_path).extra, costs(tmp_path, "on_spread(reward)").extra
    assert (refilled["seconds_generation"].mid or 0) > (plain["seconds_generation"].mid or 0)
    assert refilled["seconds_update"] == plain["seconds_update"]


def test_one_step_behind_promises_no_more_than_the_device_gives(tmp_path: Path) -> None:
    """Generation and learning share a device: between their sum and the longer of them, and no old log-probs are computed."""
    plain, behind = costs(tmp_path), costs(tmp_path, rest="behind = 1 steps")
    assert behind.extra["seconds_generation"] == plain.extra["seconds_generation"]
    assert behind.extra["seconds_update"] == plain.extra["seconds_update"]
    assert "seconds_old_log_probs" in plain.extra
    assert "seconds_old_log_probs" not in behind.extra
    parts = [behind.extra[f"seconds_{name}"] for name in ("generation", "update")]
    found = behind.seconds.made.parts["generation beside learning"]
    assert found.mid == pytest.approx(sum(part.mid or 0 for part in parts))
    assert found.hi == pytest.approx(sum(part.hi or 0 for part in parts))
    assert found.lo == pytest.approx(max(part.lo or 0 for part in parts))
    corrected = costs(tmp_path, rest="behind = 1 steps, rollout_correction = token_truncated()")
    assert "seconds_old_log_probs" in corrected.extra


def test_one_step_behind_the_engine_has_weights_of_its_own(tmp_path: Path) -> None:
    engine = "engine = transformers(batch = 8)"
    plain, behind = (costs(tmp_path, rest=f"behind = {n} steps, {engine}").memory for n in (0, 1))
    assert plain is not None
    assert behind is not None
    assert "engine weights" not in plain.parts
    weights = behind.parts["engine weights"]
    assert weights.mid == plain.parts["weights"].mid
    assert (behind.total.lo or 0) > (plain.total.lo or 0)
    share = costs(tmp_path, rest="behind = 1 steps, engine = vllm()").memory
    assert share is not None
    assert "engine weights" not in share.parts, "they are within its share"


def test_the_reference_of_a_divergence_is_another_pass_and_another_model(tmp_path: Path) -> None:
    """Of adapters it is the model without them."""

    def of(kl: str, rest: str = "") -> Costs:
        return costs(tmp_path, rest=rest, algorithm=f"grpo(clip = [0.2, 0.2]{kl})")

    plain, with_kl = of(""), of(", kl = 0.01")
    assert plain.memory is not None
    assert with_kl.memory is not None
    assert "seconds_reference" not in plain.extra
    update = with_kl.extra["seconds_update"].mid or 0.0
    assert with_kl.extra["seconds_reference"].mid == pytest.approx(update / 3)
    assert (with_kl.seconds.mid or 0) > (plain.seconds.mid or 0)
    assert "reference" not in plain.memory.parts
    assert with_kl.memory.parts["reference"].mid == plain.memory.parts["weights"].mid
    adapted = of(", kl = 0.01", "adapter = lora(rank = 8, alpha = 16)")
    assert adapted.memory is not None
    assert "reference" not in adapted.memory.parts
    assert "seconds_reference" in adapted.extra


@pytest.mark.parametrize(
    ("sharding", "copied"), [("zero(2)", False), ("zero(3)", True), ("fsdp()", True)]
)
def test_transformers_draws_with_a_copy_of_weights_that_are_cut_up(
    tmp_path: Path, sharding: str, copied: bool
) -> None:
    rest = f"sharding = {sharding}, processes = 2, engine = transformers()"
    memory = costs(tmp_path, rest=rest).memory
    assert memory is not None
    assert ("engine weights" in memory.parts) == copied


def test_memory_counts_the_sequences_that_are_decoded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 rollouts of a step; without `engine` as many at once as there are, up to 512. Of what a pass leaves free nothing counts, so
    this is the upper end."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def engine(rest: str) -> float:
        memory = costs(tmp_path, rest=rest).memory
        assert memory is not None
        return memory.parts["engine"].hi or 0.0

    sixteen = engine("engine = transformers(batch = 16)")
    assert engine("engine = transformers(batch = 64)") == pytest.approx(4 * sixteen)
    assert sixteen > 0
    assert engine("") == pytest.approx(16 * sixteen)
    twice = costs(tmp_path, "on_spread(reward, generate = 64 prompts)").memory
    assert twice is not None
    assert twice.parts["engine"].hi == pytest.approx(32 * sixteen)


def test_what_does_not_fit_one_step_behind_may_fit_in_turn() -> None:
    shape = Shape(
        num_params=1_500_000_000, layers=28, hidden=1536, heads=12, kv_heads=2, head_dim=128,
        vocab=151_936, intermediate=8960,
    )  # fmt: skip
    behind = Job(shape, 8_192, engine="transformers", engine_bytes=2.0**30, engine_writes=True)
    in_turn = measure(replace(behind, engine_writes=False)).total.hi
    assert in_turn is not None
    job = replace(behind, capacity=in_turn / 0.94 + 2.0**20)
    assert measure(job).verdict != "fits"
    assert any(text.startswith("behind = 0 steps: ") for text in flips(job, measure(job)))


def test_behind_is_a_factor_of_weights_and_its_default_moves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = {
        rest: planned(tmp_path, rest=rest).stage("reasoner").fingerprint
        for rest in ("", "behind = 0 steps", "behind = 1 steps")
    }
    assert marks[""] == marks["behind = 0 steps"]
    assert marks[""] != marks["behind = 1 steps"]
    planned(tmp_path)
    path, state = str(tmp_path / "recipe.omr"), str(tmp_path / "state")
    main(["diff", path, path, "--set-b", "reasoner.behind=1", "--state", state])
    told = " ".join(capsys.readouterr().out.split())
    assert "reasoner.behind 0 -> 1" in told
    assert "(weights" in told


@pytest.mark.parametrize(("behind", "idle"), [(0, True), (1, False)])
def test_the_clip_range_acts_on_rollouts_of_an_older_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], behind: int, idle: bool
) -> None:
    """Also where a batch is learned from once."""
    rest = f"behind = {behind} steps"
    found = []
    for place, clip in enumerate(("0.28", "0.3")):
        path = tmp_path / f"{place}.omr"
        text = RECIPE.replace("REFILL", "").replace("REST", rest).replace("0.28", clip)
        path.write_text(text.replace("minibatch    = 8", "minibatch    = 32"))
        found.append(str(path))
    main(["check", found[0]])
    assert ("W101" in "".join(capsys.readouterr())) == idle
    main(["diff", *found, "--state", str(tmp_path / "state")])
    told = " ".join(capsys.readouterr().out.split())
    assert ("the ratio is 1" in told) == idle


def test_what_is_under_way_besides_is_not_waited_for(tmp_path: Path) -> None:
    """Continued, all that is drawn is learned from; dropped, the rest was drawn too. Neither waits for the longest."""
    plain = costs(tmp_path)
    going_on = costs(tmp_path, rest="oversample = 32 prompts")
    dropping = costs(tmp_path, rest="oversample = 32 prompts, unfinished = drop()")
    assert going_on.extra["rollouts"].mid == going_on.rows_out.mid == BATCHES
    assert dropping.extra["rollouts"].mid == 2 * BATCHES
    assert dropping.extra["rollouts_left_out"].mid == dropping.rows_out.mid == BATCHES
    waited = [one.extra["seconds_generation"].mid or 0 for one in (plain, going_on)]
    assert waited[1] <= waited[0]
    assert "seconds_old_log_probs" in dropping.extra
    assert "seconds_old_log_probs" not in going_on.extra


def test_oversampling_moves_the_fingerprint_and_its_default_nothing(tmp_path: Path) -> None:
    rests = ("", "oversample = none", "oversample = 8 prompts", "oversample = 8 prompts, unfinished = continue()", "oversample = 8 prompts, unfinished = drop()")  # fmt: skip
    marks = [planned(tmp_path, rest=rest).stage("reasoner").fingerprint for rest in rests]
    assert marks[0] == marks[1]
    assert marks[2] == marks[3]
    assert len(set(marks)) == 3


def test_a_round_says_the_same_whether_it_is_written_or_left_to_the_batch(tmp_path: Path) -> None:
    marks = {
        planned(tmp_path, refill).stage("reasoner").fingerprint
        for refill in ("on_spread(reward)", "on_spread(reward, generate = 32 prompts)")
    }
    assert len(marks) == 1


@pytest.mark.parametrize(("keep", "gib"), [("2", 3.0), ("all", 6.0)])
def test_checkpoints_take_what_stays(
    tmp_path: Path, keep: str, gib: float, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tmp_path, rest=f"checkpoint {{ every = 2 steps, keep = {keep} }}")
    state = str(tmp_path / "state")
    args = ["explain", str(tmp_path / "recipe.omr"), "reasoner.checkpoints", "--state", state]
    assert main(args) == 0
    assert f"{gib} GiB" in capsys.readouterr().out


WATCH = "watch { every = 4 steps, from = [held_out], n = 2 }"


def test_validation_is_priced(tmp_path: Path) -> None:
    """Before the first step and after steps 4 and 8 of 10: three looks at 500 rows, two answers each."""
    plain, found = costs(tmp_path), costs(tmp_path, rest=WATCH)
    assert found.extra["looks"].mid == 3
    assert found.extra["watch_answers"].mid == 3 * 500 * 2
    more = (found.seconds.mid or 0) - (plain.seconds.mid or 0)
    assert more == pytest.approx(found.extra["seconds_watch"].mid)
    assert more > 0
    asked = {item.what: item.times.mid for item in found.asked}
    assert asked == {"answer_matches": BATCHES, "watch: answer_matches": 3 * 500 * 2}


def test_validation_moves_no_fingerprint_and_needs_its_rows(tmp_path: Path) -> None:
    plain = planned(tmp_path).stage("reasoner")
    watched = planned(tmp_path, rest=WATCH).stage("reasoner")
    assert watched.fingerprint == plain.fingerprint
    assert "held_out" in watched.parents


def test_validation_looks_at_columns_of_its_own_rows(tmp_path: Path) -> None:
    """``score`` is an expression over the watched rows, which may have columns that the others lack."""
    own = 'source held_out from jsonl("h.jsonl") { columns { question = q, answer = a, extra.level = l } }'
    text = RECIPE.replace('source held_out from jsonl("held_out.jsonl") { rows = 500 }', own)
    path = tmp_path / "recipe.omr"
    for score, wrong in (
        ('answer_matches and extra.level == "easy"', None),
        ("extra.lvl == 1", "E209"),
    ):
        watch = WATCH.replace("n = 2", f"score = {score}")
        path.write_text(text.replace("REFILL", "").replace("REST", watch))
        recipe, found = load(path)
        assert (recipe is None) == (wrong is not None), render(found)
        assert wrong is None or wrong in {item.code for item in found}
