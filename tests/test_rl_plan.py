"""What a plan says of rollouts: those that dynamic sampling generates besides, by a share that is assumed, declared or
measured, and what checkpoints take on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.compiler import load
from omrlang.plan import Costs, Plan
from omrlang.planning import make_plan
from omrlang.render import render

RECIPE = """omr 1

use std.formats
use std.models

source questions from jsonl("questions.jsonl") { rows = 10_000 }

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
BATCHES = 10 * 32 * 8


def planned(folder: Path, refill: str = "", rest: str = "") -> Plan:
    path = folder / "recipe.omr"
    given = f", refill = {refill}" if refill else ""
    path.write_text(RECIPE.replace("REFILL", given).replace("REST", rest))
    recipe, found = load(path)
    assert recipe is not None, render(found)
    return make_plan(recipe, folder / "state", path)


def costs(folder: Path, refill: str = "", rest: str = "") -> Costs:
    found = planned(folder, refill, rest).stage("reasoner").costs
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


def test_a_round_says_the_same_whether_it_is_written_or_left_to_the_batch(tmp_path: Path) -> None:
    marks = {
        planned(tmp_path, refill).stage("reasoner").fingerprint
        for refill in ("on_spread(reward)", "on_spread(reward, generate = 32 prompts)")
    }
    assert len(marks) == 1


@pytest.mark.parametrize(("keep", "gib"), [("2", 3.0), ("all", 7.5)])
def test_checkpoints_take_what_stays(
    tmp_path: Path, keep: str, gib: float, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tmp_path, rest=f"checkpoint {{ every = 2 steps, keep = {keep} }}")
    state = str(tmp_path / "state")
    args = ["explain", str(tmp_path / "recipe.omr"), "reasoner.checkpoints", "--state", state]
    assert main(args) == 0
    assert f"{gib} GiB" in capsys.readouterr().out
