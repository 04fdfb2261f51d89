"""``omr ablate``: what varies, what is shared, and a table whose numbers are the lineage's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from omr_runtime.report.arms import gain, outcome
from omr_runtime.report.overlap import overlap
from omr_runtime.report.ran import Ran, find
from omr_runtime.store import State, read_index
from omrlang.ablation import arms, swept
from omrlang.cli import main
from omrlang.cli.schema import one
from omrlang.diff import Study

TINY = """omr 1

use std.formats

seed = 7

model teacher = scripted("shapes", right = 70%)

model tiny = fresh("qwen2_5_vl", layers = 1, hidden = 32, heads = 2, vision_layers = 1, vision_hidden = 32) {
  precision = fp32
}

source puzzles from synthetic("shapes", n = 40, seed = 11)

source held_out from synthetic("shapes", n = 20, seed = 12)

sample traces from puzzles with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter accepted from traces {
  keep = format_ok and answer_matches
}

sft cold_start from accepted with tiny {
  prompt    = formats.think_answer_short
  pack      = 512
  batch     = 1 pack
  steps     = 4
  lr        = constant(1e-3)
  precision = fp32
}

eval after from [held_out] with cold_start {
  prompt      = formats.think_answer_short
  temperature = 0
  max_tokens  = 16
}
"""
STATE = Path("nowhere")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.omr"
    path.write_text(TINY)
    return path


def test_seeds_vary_trainings_alone(recipe: Path) -> None:
    (arm,) = arms("tiny.omr", [], 3)
    plans = [arm.side(number, STATE).plan for number in range(3)]
    marks = [{stage.name: stage.fingerprint for stage in plan.stages} for plan in plans]
    differ = {name for name in marks[0] if len({mark[name] for mark in marks}) > 1}
    assert differ == {"cold_start", "after"}
    assert len({plan.recipe for plan in plans}) == 3


def test_what_varies_multiplies(recipe: Path) -> None:
    found = arms("tiny.omr", ["traces.n=1,2", "cold_start.steps=4,8"], 1)
    assert [arm.recipes[0].variant for arm in found] == [
        "traces.n=1,cold_start.steps=4",
        "traces.n=1,cold_start.steps=8",
        "traces.n=2,cold_start.steps=4",
        "traces.n=2,cold_start.steps=8",
    ]


@given(st.lists(st.integers(1, 99), min_size=2, unique=True))
def test_any_values_are_a_sweep(values: list[int]) -> None:
    assert swept(f"a.n={','.join(map(str, values))}").startswith("a.n=sweep(")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing varies"),
        (["--vary", "traces.n"], "is wanted"),
        (["--vary", "traces.n=1"], "E308"),
        (["--vary", "trace.n=1,2"], "unknown name `trace`"),
        (["--vary", "traces.n=1,2", "--seeds", "0"], "no number of seeds"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], message: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", "tiny.omr", *words]) in (1, 64)
    assert message in capsys.readouterr().err


def test_a_study_is_priced_before_it_is_run(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", "tiny.omr", "--vary", "traces.n=1,2,4", "--plan", "--json"]) == 0
    made = Study.model_validate_json(capsys.readouterr().out)
    drawn = [column.marginal.rows_sampled.mid for column in made.columns]
    assert drawn == [40, 40, 80]
    assert made.together.rows_sampled.mid == 160 == sum(drawn)
    assert not Path(".omr").exists()


def test_seeds_are_priced_too_and_what_they_share_once(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ablate", "tiny.omr", "--vary", "traces.n=1,2", "--seeds", "3", "--plan"]
    assert main([*words, "--json"]) == 0
    made = Study.model_validate_json(capsys.readouterr().out)
    assert made.under_seeds is not None
    assert made.under_seeds.rows_sampled.mid == made.together.rows_sampled.mid == 80
    assert 2 < (made.under_seeds.tokens.mid or 0) / (made.together.tokens.mid or 1) < 3
    assert main(words) == 0
    assert "together  3 seeds" in capsys.readouterr().out


@pytest.mark.slow
def test_two_levels_under_two_seeds(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "tiny.omr", "--vary", "traces.n=1,2", "--seeds", "2"]
    assert main([*words, "--json", "--html", "page.html"]) == 0
    data = json.loads(capsys.readouterr().out)
    Draft202012Validator(one(Study)).validate(data)
    made = Study.model_validate(data)
    # 2 sources; 2 samples and 2 filters, one a level; 4 trainings and 4 evals, one a level and seed.
    assert (made.executed, made.without_sharing) == (14, 24)
    index = read_index(State(Path(".omr")))["stages"].values()
    assert sum(entry["status"] == "done" for entry in index) == 14
    check_numbers(made)
    page = Path("page.html").read_text()
    assert page.count("<svg") == 5
    assert main([*words, "--json"]) == 0
    again = Study.model_validate_json(capsys.readouterr().out)
    assert again.executed == 0
    assert [column.scores for column in again.columns] == [column.scores for column in made.columns]


def check_numbers(made: Study) -> None:
    """The table's against the index, and the rows against the lineage."""
    runs = {path: find(Path(".omr"), path.stem) for path in Path(".omr/plans").glob("2*.json")}
    for column, n in zip(made.columns, (1, 2), strict=True):
        found = [run for run in runs.values() if run.plan.stage("traces").spec.n == n]  # type: ignore[union-attr]
        accuracies = [run.entries["after"]["metrics"]["accuracy"] for run in found]
        (score,) = column.scores
        assert score.accuracy.mean == pytest.approx(sum(accuracies) / len(accuracies))
        assert (score.accuracy.num, score.accuracy.seeds) == (20, 2)
    (found_diff,) = made.diffs
    rows = {item.stage: item.sources[0] for item in found_diff.rows}
    assert (rows["traces"].common, rows["traces"].only_a, rows["traces"].only_b) == (40, 0, 40)
    assert rows["traces"].why_not_a == {"not sampled": 40}
    (result,) = found_diff.results
    assert result.paired
    assert result.gain.mean == pytest.approx(result.b.mean - result.a.mean)


# ---- intervals ---------------------------------------------------------------------------------


def run_with(accuracy: float, half: float) -> Ran:
    metrics = {
        "accuracy": accuracy,
        "accuracy_lo": accuracy - half,
        "accuracy_hi": accuracy + half,
        "num_questions": 100,
        "mean_response_tokens": 50.0,
    }
    entry = {"status": "done", "metrics": metrics}
    return Ran(State(STATE), None, {"after": entry})  # type: ignore[arg-type]


def test_one_run_keeps_its_own_interval_and_seeds_widen_it() -> None:
    alone = outcome([run_with(0.5, 0.1)], "after")
    assert alone is not None
    assert (alone.lo, alone.hi) == (0.4, 0.6)
    equal = outcome([run_with(0.5, 0.1)] * 3, "after")
    assert equal is not None
    assert equal.hi - equal.lo == pytest.approx(0.2)
    spread = outcome([run_with(0.4, 0.1), run_with(0.5, 0.1), run_with(0.6, 0.1)], "after")
    assert spread is not None
    assert spread.accuracy == pytest.approx(0.5)
    assert spread.hi - spread.lo > 0.2


def test_a_gain_is_paired_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seed gains 0.1, from starts that lie far apart: the interval is that of the questions alone."""
    answers = {f"q{i}": [float(i % 2)] for i in range(100)}
    better = {f"q{i}": [float(i % 2 or i % 10 == 0)] for i in range(100)}
    before = [run_with(accuracy, 0.1) for accuracy in (0.3, 0.5, 0.7)]
    after = [run_with(accuracy, 0.1) for accuracy in (0.4, 0.6, 0.8)]
    sides = {id(before[0]): answers, id(after[0]): better}
    monkeypatch.setattr("omr_runtime.report.arms._scores", lambda runs, stage: sides[id(runs[0])])
    found = gain(before, after, "after", "after")
    assert found is not None
    assert found.is_paired
    assert found.difference == pytest.approx(0.1)
    assert found.lo > 0.0
    two = gain(before, after[:2], "after", "after")
    assert two is not None
    assert two.hi - two.lo > 3 * (found.hi - found.lo)


def test_what_was_not_run_has_no_outcome() -> None:
    nothing = Ran(State(STATE), None, {})  # type: ignore[arg-type]
    assert outcome([nothing], "after") is None
    assert gain([nothing], [nothing], "after", "after") is None
    assert overlap(nothing, nothing, "a", "a") == {}
