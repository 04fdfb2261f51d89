"""A probe runs a slice of a stage, leaves nothing of it, and the next plan's numbers stand on what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omr_runtime import lineage
from omrlang.cli import main
from omrlang.cli.plans import load_plan
from omrlang.plan import PlanStage

RECIPE = """omr 1

use std.formats

model teacher = scripted("shapes", right = 50%)

model tiny = fresh(
  "qwen2_5_vl", layers = 2, hidden = 64, heads = 2, vision_layers = 2, vision_hidden = 48,
  vocabulary = shapes, seed = 1,
) {
  precision = fp32
}

source puzzles from synthetic("shapes", n = 400, seed = 1)

sample traces from puzzles with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

sft cold from traces with tiny {
  prompt    = formats.think_answer_short
  pack      = 1_024
  batch     = 1 pack
  epochs    = 2
  lr        = constant(1e-3)
  precision = fp32
}

sft longer from traces with tiny {
  prompt    = formats.think_answer_short
  pack      = 1_024
  batch     = 1 pack
  epochs    = 3
  lr        = constant(1e-3)
  precision = fp32
}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.omr").write_text(RECIPE)
    return Path("r.omr")


def planned(recipe: Path, name: str) -> PlanStage:
    plan = load_plan(recipe, Path(".omr"), [])
    assert plan is not None, "the recipe is right"
    return plan.stage(name)


def was(stage: PlanStage, number: str) -> float:
    index = json.loads(Path(".omr/index.json").read_text())
    return float(index["stages"][stage.fingerprint][number])


def test_a_sample_is_probed(recipe: Path) -> None:
    assert main(["run", "r.omr", "--select", "puzzles"]) == 0
    guessed = planned(recipe, "traces")
    assert main(["probe", "r.omr", "traces"]) == 0
    after = planned(recipe, "traces")
    assert guessed.costs is not None
    assert after.costs is not None
    # Nothing of the probe is taken for the stage's own work.
    assert after.action == "new"
    assert not Path(".omr/probe").exists()
    assert not Path(".omr/store/samples").exists()
    assert after.costs.tokens.origin == "calibrated"
    assert after.costs.seconds.origin == "calibrated"
    with lineage.read(Path(".omr/lineage.duckdb")) as reader:
        rows = reader.ask("select name, units from probe where stage = ?", after.fingerprint)
    assert rows == [{"name": "traces", "units": 800.0}]
    assert main(["run", "r.omr", "--select", "traces"]) == 0
    before, tokens, actual = guessed.costs.tokens.mid, after.costs.tokens, was(after, "tokens")
    assert before is not None
    assert tokens.mid is not None
    assert abs(tokens.mid - actual) < abs(before - actual)
    assert tokens.mid == pytest.approx(actual, rel=0.1)


def test_what_is_missing_is_named(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "r.omr", "cold"]) == 1
    said = capsys.readouterr().err
    assert "sft.cold stands on sample.traces, not there yet" in said
    assert "omr run r.omr --select +traces --state .omr" in said
    assert main(["probe", "r.omr", "puzzles"]) == 64
    assert "source.puzzles runs no model" in capsys.readouterr().err
    assert main(["probe", "r.omr", "trace"]) == 64
    assert "traces" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_is_probed(recipe: Path) -> None:
    assert main(["run", "r.omr", "--select", "+traces"]) == 0
    guessed = planned(recipe, "cold")
    assert main(["probe", "r.omr", "cold"]) == 0
    after, other = planned(recipe, "cold"), planned(recipe, "longer")
    assert not Path(".omr/models").exists()
    assert not Path(".omr/checkpoints").exists()
    assert main(["run", "r.omr", "--select", "cold"]) == 0
    for stage, origin in ((after, "measured"), (other, "calibrated")):
        assert stage.costs is not None
        assert stage.costs.memory is not None
        assert stage.costs.memory.total.origin == origin
        assert stage.costs.seconds.origin in ("calibrated", "assumed")
    assert guessed.costs is not None
    assert after.costs is not None
    assert guessed.costs.memory is not None
    assert after.costs.memory is not None
    assert after.costs.tokens.mid == pytest.approx(was(after, "tokens"), rel=0.1)
    peak, first, then = was(after, "peak_bytes"), guessed.costs.memory, after.costs.memory
    assert first.total.mid is not None
    assert then.total.mid is not None
    assert abs(then.total.mid - peak) < abs(first.total.mid - peak)
    assert then.total.mid == pytest.approx(peak, rel=0.15)
    models = sorted(Path(".omr/models").iterdir())
    assert models
    assert main(["probe", "r.omr", "longer"]) == 0
    assert sorted(Path(".omr/models").iterdir()) == models
    assert all((model / "config.json").exists() for model in models)
