"""How often each rule, verifier and judge of an expression is expected to be asked, as a plan says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omrlang.compiler import load
from omrlang.plan import Asked, Plan
from omrlang.planning import make_plan
from omrlang.render import render

HEAD = """omr 1

use std.formats

model teacher = scripted("shapes", right = 50%)

model referee = hf("org/referee", revision = "1")

source puzzles from synthetic("shapes", n = 1_000, seed = 1)

sample traces from puzzles with teacher {
  n           = 4
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

"""


def plan_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> Plan:
    monkeypatch.chdir(tmp_path)
    path = Path("r.omr")
    path.write_text(HEAD + rest)
    recipe, found = load(path)
    assert recipe is not None, render(found)
    return make_plan(recipe, Path(".omr"), path)


def asked(plan: Plan, stage: str) -> tuple[Asked, ...]:
    costs = plan.stage(stage).costs
    assert costs is not None
    return costs.asked


def test_a_judge_is_asked_for_what_the_rules_before_it_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = """filter kept from traces {
  keep = format_ok and judge(referee) and num_tokens < 50
  assume { keep = 12.5% }
}
"""
    plan = plan_of(tmp_path, monkeypatch, rest)
    rules = asked(plan, "kept")
    assert [(rule.what, rule.asks) for rule in rules] == [
        ("num_tokens < 50", "sql"),
        ("format_ok", "response"),
        ("judge(referee)", "model"),
    ]
    # 12.5% over three rules is half at each.
    assert [rule.times.mid for rule in rules] == pytest.approx([4000, 2000, 1000])
    judge = rules[2].parts[0]
    assert (judge.what, judge.asks, judge.times.unit) == ("judge(referee)", "model", "times")
    assert judge.times.mid == pytest.approx(1000)
    assert judge.times.origin == "declared"
    said = json.loads(plan.model_dump_json())["stages"][2]["costs"]["asked"]
    assert said[2]["parts"][0]["times"]["mid"] == pytest.approx(1000)


def test_an_or_asks_the_judge_for_what_the_rules_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = """filter kept from traces {
  keep = answer_matches or judge(referee)
  assume { keep = 60% .. 80% }
}
"""
    (rule,) = asked(plan_of(tmp_path, monkeypatch, rest), "kept")
    matches, judge = rule.parts
    assert (rule.times.mid, matches.times.mid) == (4000, 4000)
    assert rule.asks == "model"
    # Half of the 70% by the left side, so 65% are refused by it.
    assert judge.times.mid == pytest.approx(4000 * (1 - 0.5 * 0.7))
    assert judge.times.lo is not None
    assert judge.times.hi is not None
    assert judge.times.lo < judge.times.mid < judge.times.hi <= 4000
    assert judge.times.origin == "assumed"


def test_every_rollout_is_scored_and_a_default_score_is_asked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = """model small = fresh("qwen2_5_vl", layers = 1, hidden = 32, heads = 2, vision_layers = 1, vision_hidden = 32)

rl trained from puzzles with small {
  prompt       = formats.think_answer_short
  algorithm    = grpo(clip = [0.2, 0.2])
  reward       = 0.9 * (answer_matches or judge(referee)) + 0.1 * format_score
  group        = 8
  batch        = 10 prompts
  steps        = 5
  lr           = constant(1e-6)
  temperature  = 1.0
  max_prompt   = 64
  max_response = 64
}

eval tested from puzzles with trained {
  prompt      = formats.think_answer_short
  temperature = 0
  max_tokens  = 64
}
"""
    plan = plan_of(tmp_path, monkeypatch, rest)
    (reward,) = asked(plan, "trained")
    times = {part.what: part.times.mid for part in reward.parts}
    assert times == pytest.approx(
        {"answer_matches": 400, "judge(referee)": 300, "format_score": 400}
    )
    (score,) = asked(plan, "tested")
    assert [(part.what, part.times.mid) for part in score.parts] == [("answer_matches", 1000)]
