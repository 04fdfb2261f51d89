"""What judges and providers take: calls, tokens, dollars by the token, seconds where the recipe serves them itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from omrlang.cli.plan_text import plan_text
from omrlang.compiler import load
from omrlang.plan import Costs, Plan
from omrlang.planning import make_plan
from omrlang.render import render

HEAD = """omr 1

use std.formats
use std.gpus
use std.models

model teacher = scripted("shapes", right = 50%)

model referee = hf("org/referee", revision = "1") {
  engine = ENGINE
}

source puzzles from synthetic("shapes", n = 1_000, seed = 1)

sample traces from puzzles with teacher {
  n           = 4
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

"""
PRICED = 'openai("http://localhost:1", price_in = $0.50 / Mtoken, price_out = $2 / Mtoken)'
UNPRICED = 'openai("http://localhost:1")'
KEPT = """filter kept from traces {
  keep = judge(referee)
  assume { keep = 50% }
}
"""


def plan_of(folder: Path, engine: str, rest: str) -> Plan:
    path = folder / "r.omr"
    path.write_text(HEAD.replace("ENGINE", engine) + rest)
    recipe, found = load(path)
    assert recipe is not None, render(found)
    return make_plan(recipe, folder / ".omr", path)


def costs_of(plan: Plan, stage: str) -> Costs:
    costs = plan.stage(stage).costs
    assert costs is not None
    return costs


def test_a_priced_judge_costs_its_tokens(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PRICED, KEPT)
    extra = costs_of(plan, "kept").extra
    assert extra["judge_calls"].mid == 4000
    read = next(
        item
        for item in extra["judge_usd"].made.parts["judge(referee)"].inputs
        if item.name == "read"
    )
    assert read.mid is not None
    assert extra["judge_usd"].mid == pytest.approx((read.mid * 0.5 + 4000 * 2.0 * 2) / 1e6)
    assert plan.totals.usd.mid is not None
    assert float(plan.totals.usd.mid) == pytest.approx(extra["judge_usd"].mid, abs=0.01)
    assert "$" in plan_text(plan, 110).splitlines()[0]


def test_a_judge_without_a_price_is_counted_and_not_free(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, UNPRICED, KEPT)
    costs = costs_of(plan, "kept")
    assert costs.extra["judge_usd"].mid is None
    assert costs.extra["judge_tokens"].mid is not None
    assert plan.totals.not_estimated == 1
    assert "kept.judge price" in plan_text(plan, 110)
    assert "declares no price" in plan_text(plan, 110)


def test_a_judge_that_sees_the_response_reads_more(tmp_path: Path) -> None:
    whole = KEPT.replace("judge(referee)", 'judge(referee, sees = "response")')
    short, long = (
        costs_of(plan_of(tmp_path, PRICED, rest), "kept").extra["judge_tokens"].mid
        for rest in (KEPT, whole)
    )
    assert short is not None
    assert long is not None
    assert long > short


def test_a_teacher_at_a_provider_costs_its_tokens_and_is_not_free(tmp_path: Path) -> None:
    sample = """sample asked from puzzles with referee {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 100
  assume { response = 50 tokens }
}
"""
    costs = costs_of(plan_of(tmp_path, PRICED, sample), "asked")
    read, written = costs.extra["prompt_tokens"].mid, costs.tokens.mid
    assert read is not None
    assert written == 2 * 1000 * 50
    assert costs.usd.mid is not None
    assert float(costs.usd.mid) == pytest.approx((read * 0.5 + written * 2) / 1e6, abs=0.01)
    assert costs_of(plan_of(tmp_path, UNPRICED, sample), "asked").usd.mid is None


def test_rollouts_are_judged_and_a_budget_counts_it(tmp_path: Path) -> None:
    rest = """budget { p90 = $0.01 }

rl better from puzzles with models.qwen2_5_vl_3b on 8 * gpus.h100_80gb {
  sharding     = zero(3)
  prompt       = formats.think_answer_short
  algorithm    = grpo(clip = [0.2, 0.2])
  reward       = answer_matches or judge(referee)
  group        = 8
  batch        = 64 prompts
  steps        = 100
  lr           = constant(1e-6)
  temperature  = 1.0
  max_prompt   = 256
  max_response = 256
}
"""
    plan = plan_of(tmp_path, PRICED, rest)
    extra = costs_of(plan, "better").extra
    calls, rollouts = extra["judge_calls"].mid, extra["rollouts"].mid
    assert calls is not None
    assert rollouts == 100 * 64 * 8
    assert 0 < calls < rollouts
    assert plan.exit.reason == "over_budget_p90"
