"""Each run keeps what was planned beside what came of it, and the next plan stands on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from omr_runtime import lineage
from omr_runtime.work import peak_bytes
from omrlang.cli import main
from omrlang.cli.calibration import Compared, text
from omrlang.cli.plans import load_plan
from omrlang.estimate.jobs import with_measured
from omrlang.plan import Estimate, Input, Memory
from omrlang.state import Record

RECIPE = """omr 1

use std.formats

model teacher = scripted("shapes", right = 50%)

source puzzles from synthetic("shapes", n = 40, seed = 1)

sample traces from puzzles with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter right from traces {
  keep = answer_matches
  assume { keep = 10% .. 20% }
}
"""


def test_a_run_is_held_against_its_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, state = tmp_path / "r.omr", ["--state", str(tmp_path / ".omr")]
    recipe.write_text(RECIPE)
    assert main(["plan", str(recipe), "--calibration", *state]) == 1
    assert "nothing was run" in capsys.readouterr().err
    assert main(["run", str(recipe), *state]) == 0
    capsys.readouterr()
    assert main(["plan", str(recipe), "--calibration", *state]) == 0
    said = capsys.readouterr().out
    lines = {tuple(line.split()[:2]): line for line in said.splitlines() if line.strip()}
    assert lines["traces", "rows"].endswith("in range")
    assert "80 rows" in lines["traces", "rows"]
    assert lines["right", "rows"].endswith("OUTSIDE")
    assert "rows: 2 of 3 in their range" in said
    assert main(["explain", str(recipe), "right.rows", *state]) == 0
    assert "measured" in capsys.readouterr().out


SOURCE = """omr 1

source numbers from jsonl("numbers.jsonl") {{
  columns {{ question = text(n) }}
  where = number(question) < 50
  take  = {take}
  assume {{ keep = 60% }}
}}
"""


def test_rows_that_were_not_read_say_nothing_of_where(tmp_path: Path) -> None:
    """``take`` comes before ``where``, in a plan as in a run; and another ``take`` is planned by what ``where`` kept of the first."""
    lines = "".join(f'{{"n": {n}}}\n' for n in range(100))
    (tmp_path / "numbers.jsonl").write_text(lines)
    recipe, state = tmp_path / "r.omr", tmp_path / ".omr"

    def rows(take: int) -> Estimate:
        recipe.write_text(SOURCE.format(take=take))
        plan = load_plan(recipe, state, [])
        assert plan is not None
        costs = plan.stage("numbers").costs
        assert costs is not None
        return costs.rows_out

    assert (rows(40).mid, rows(40).origin) == (24, "declared")
    assert main(["run", str(recipe), "--state", str(state)]) == 0
    kept = rows(40).mid
    assert rows(40).origin == "measured"
    assert kept is not None
    assert (rows(60).mid, rows(60).origin) == (pytest.approx(60 * kept / 40), "calibrated")


def test_an_error_is_a_share_of_what_was_measured() -> None:
    number = Input("seconds", 1.0, 2.0, 3.0, "s", "assumed")
    inside, outside = Compared("a", number, 2.5), Compared("b", number, 4.0)
    assert (inside.in_range, outside.in_range) == (True, False)
    assert outside.error == pytest.approx(-0.5)
    assert "1 of 2 in their range, median error 35%" in text([inside, outside])


def test_a_measured_peak_decides_the_verdict() -> None:
    guess = Estimate(lo=1e9, mid=5e9, hi=9e9, unit="bytes", origin="assumed", formula="parts")
    planned = Memory(parts={"weights": guess}, total=guess, capacity_bytes=8e9, verdict="uncertain")
    assert with_measured(planned, None) is planned
    known = with_measured(planned, Record(peak_bytes=6e9))
    assert (known.total.mid, known.total.origin, known.verdict) == (6e9, "measured", "fits")


def test_a_worker_knows_its_peak() -> None:
    before = peak_bytes()
    block = bytearray(64 << 20)
    assert peak_bytes() >= max(before, len(block))


PUBLISHED = """omr 1

use std.formats
use std.gpus
use std.models

hardware pod = 8 * gpus.h100_80gb

source rows from jsonl("rows.jsonl") { assume { rows = 90_000 rows, response = 900 tokens } }

sft short from rows with models.qwen3_4b on pod {
  prompt    = formats.think_answer
  pack      = 16_384
  batch     = 1 pack / gpu
  steps     = 1_000
  lr        = constant(1e-5)
  sharding  = zero(3)
  recompute = true
}

sft long from rows with models.qwen3_4b on pod {
  prompt    = formats.think_answer
  pack      = 32_768
  batch     = 1 pack / gpu
  steps     = 1_000
  lr        = constant(1e-5)
  sharding  = zero(3)
  recompute = true
}
"""


def test_what_others_published_calibrates_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """prime-rl's row: Qwen3-4B, full SFT on 8 H100, 16,384 tokens: 6,215 tokens/s and 54.63 GiB on each."""
    monkeypatch.chdir(tmp_path)
    Path("r.omr").write_text(PUBLISHED)
    told = ["--source", "prime-rl, benchmarks/baselines", "--tokens-per-s", "6215"]
    assert main(["probe", "r.omr", "short", *told, "--peak-gib", "54.63"]) == 0
    assert "published by prime-rl" in capsys.readouterr().out
    plan = load_plan(Path("r.omr"), Path(".omr"), [])
    assert plan is not None
    short, long = plan.stage("short").costs, plan.stage("long").costs
    assert short is not None
    assert long is not None
    assert short.memory is not None
    assert long.memory is not None
    for costs, tokens in ((short, 16_384), (long, 32_768)):
        assert costs.seconds.origin == "calibrated"
        assert costs.seconds.mid == pytest.approx(1_000 * 8 * tokens / (8 * 6_215))
    assert short.memory.total.mid == pytest.approx(54.63 * 2**30)
    assert short.memory.total.origin == "calibrated"
    assert long.memory.total.origin == "assumed", "a peak is of its length alone"
    assert main(["explain", "r.omr", "short.seconds"]) == 0
    assert "published: prime-rl, benchmarks/baselines" in capsys.readouterr().out
    with lineage.read(Path(".omr/lineage.duckdb")) as reader:
        [row] = reader.ask("select source, tokens_per_s from published")
    assert row == {"source": "prime-rl, benchmarks/baselines", "tokens_per_s": 8 * 6_215.0}


@pytest.mark.parametrize(
    "options",
    [["--source", "x"], ["--peak-gib", "3"], ["--source", "x", "--tokens-per-s", "-1"]],
)
def test_a_figure_has_a_source_and_a_source_a_figure(options: list[str], tmp_path: Path) -> None:
    assert main(["probe", str(tmp_path / "r.omr"), "short", *options]) == 64
