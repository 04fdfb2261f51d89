"""``until = 4 of (EXPR)``: the samples of a question up to the one with which enough satisfy, whenever anyone was killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_sampling import KILLED, Spy, order, puzzles, result

from omr_runtime import engines
from omr_runtime.engines.protocol import Done, Request, failed
from omr_runtime.stages import enough, sample
from omr_runtime.verify.asking import cascade_for
from omr_runtime.work import Work
from omrlang.cli import main
from omrlang.estimate.rows import expected_until
from omrlang.expressions import row_expression
from omrlang.types import Binary, Call, Enough

RIGHT = row_expression(
    Binary(op="and", left=Call(fn="format_ok"), right=Call(fn="answer_matches")),
    "format_ok and answer_matches",
    "bool",
    ["format_ok", "answer_matches"],
)
RECIPE = """omr 1

use std.formats

model teacher = scripted("shapes", right = 70%)

source puzzles from synthetic("shapes", n = 500, seed = 1)

sample traces from puzzles with teacher {
  n           = 8
  until       = 2 of (format_ok and answer_matches)
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}
"""


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    made = Spy()
    monkeypatch.setattr(engines, "open_engine", lambda *args, **settings: made)
    return made


def until(count: int) -> Enough:
    return Enough(count=count, of=RIGHT)


def satisfying(work: Work, rows: list[dict[str, Any]]) -> list[bool]:
    """What a filter would say of each row."""
    with cascade_for(work, RIGHT, work.stage.spec.prompt) as cascade:  # type: ignore[union-attr]
        return [outcome.value is True for outcome in cascade.evaluate(rows)]


@pytest.mark.parametrize("count", [1, 3])
def test_rows_are_those_of_n_up_to_the_one_with_which_enough_satisfy(
    tmp_path: Path, count: int
) -> None:
    """The law: a prefix of what `n` alone gives, that ends with the last sample that was needed, or is all of it."""
    whole = order(tmp_path, puzzles(tmp_path, 40), "whole", n=6)
    sample.run(whole)
    everything = result(whole)
    right = satisfying(whole, everything)
    wanted: list[dict[str, Any]] = []
    passed: dict[str, int] = {}
    for row, ok in zip(everything, right, strict=True):
        if passed.get(row["parent"], 0) < count:
            wanted.append(row)
            passed[row["parent"]] = passed.get(row["parent"], 0) + ok
    fresh = order(tmp_path / "x", puzzles(tmp_path / "x", 40), "early", n=6, until=until(count))
    sample.run(fresh)
    assert result(fresh) == wanted
    assert 40 * count < len(wanted) < len(everything)
    summary = json.loads((Path(fresh.out) / "done.json").read_text())
    assert summary["num_in"] == len(wanted)
    assert 0 < summary["metrics"]["stopped_early"] <= 1


def test_no_sample_is_asked_beyond_the_one_that_is_needed(tmp_path: Path, spy: Spy) -> None:
    work = order(tmp_path, puzzles(tmp_path, 30), n=8, until=until(2))
    sample.run(work)
    kept = {(row["parent"], row["sample_index"]) for row in result(work)}
    assert set(spy.asked) == kept
    assert len(spy.asked) == len(kept)


def test_what_another_recipe_has_drawn_is_used_and_changes_no_row(tmp_path: Path, spy: Spy) -> None:
    alone = order(tmp_path / "a", puzzles(tmp_path / "a", 30), n=8, until=until(2))
    sample.run(alone)
    sample.run(order(tmp_path / "b", puzzles(tmp_path / "b", 30), "all", n=8))
    spy.asked.clear()
    after = order(tmp_path / "b", puzzles(tmp_path / "b", 30), "early", n=8, until=until(2))
    sample.run(after)
    assert spy.asked == []
    assert result(after) == result(alone)


def test_every_sample_has_its_verdicts(tmp_path: Path) -> None:
    work = order(tmp_path, puzzles(tmp_path, 20), n=4, until=until(2))
    sample.run(work)
    lines = [
        line
        for shard in enough.Shards(work.out).read()
        if "verdict" in shard.files
        for line in enough.read_table(shard.files["verdict"])
    ]
    whole = {line["row"]: line["ok"] for line in lines if line["rule"].startswith("until 2 of (")}
    assert set(whole) == {row["id"] for row in result(work)}
    assert [whole[row["id"]] for row in result(work)] == satisfying(work, result(work))


def test_a_sample_that_fails_counts_as_not_satisfied_and_is_dropped_once(
    tmp_path: Path, spy: Spy
) -> None:
    def first_fails(requests: Sequence[Request], done: Done) -> None:
        for request in requests:
            if 0 in request.indices and request.row["id"] == "row1":
                for completion in failed(request, "prompt too long"):
                    done(completion)
            else:
                spy.engine.generate([request], done)

    spy.behave = first_fails
    work = order(tmp_path, puzzles(tmp_path, 6), n=8, until=until(1))
    sample.run(work)
    dropped = [
        line
        for shard in enough.Shards(work.out).read()
        if "dropped" in shard.files
        for line in enough.read_table(shard.files["dropped"])
    ]
    assert [line["reason"] for line in dropped] == ["not sampled: prompt too long"]
    own = [row["sample_index"] for row in result(work) if row["parent"] == "row1"]
    assert own[0] == 1
    summary = json.loads((Path(work.out) / "done.json").read_text())
    assert summary["num_in"] == len(result(work)) + 1


def test_an_unknown_predicate_counts_as_not_satisfied_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undecided(rows: list[dict[str, Any]]) -> list[enough.Outcome]:
        line = {"rule": "judge(j)", "ok": None, "reason": "no answer", "score": None}
        return [
            enough.Outcome(row, None, [{**line, "row": row["id"]}], undecided=True) for row in rows
        ]

    class Nobody:
        def __enter__(self) -> Any:
            return lambda parts: ((part, undecided(part.rows)) for part in parts)

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(enough, "judging", lambda *given: Nobody())
    work = order(tmp_path, puzzles(tmp_path, 5), n=3, until=until(1))
    sample.run(work)
    assert len(result(work)) == 15
    lines = enough.read_table(enough.Shards(work.out).read()[-1].files["verdict"])
    reasons = {line["reason"] for line in lines if line["rule"].startswith("until")}
    assert reasons == {"unknown, which counts as not satisfied: no answer"}
    summary = json.loads((Path(work.out) / "done.json").read_text())
    assert summary["metrics"]["unknown"] == 1.0


def test_where_nothing_can_be_had_the_stage_says_why(tmp_path: Path) -> None:
    odd = {"id": "odd", "content": "odd", "source": "s", "question": "Why?", "images": []}
    with pytest.raises(enough.RunError, match=r"no sample could be had; 1 of 1: the scripted"):
        sample.run(order(tmp_path, [odd], until=until(1)))


@pytest.mark.slow
def test_killed_at_random_moments_the_rows_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n": 8, "until": until(3)}
    whole = order(tmp_path / "b", puzzles(tmp_path / "b", 60), **settings)
    work = order(tmp_path / "a", puzzles(tmp_path / "a", 60), **settings)
    process = in_small_slices(whole, tmp_path / "whole.json")
    started = time.monotonic()
    assert process.wait(120) == 0
    seconds = time.monotonic() - started
    rng, kills = random.Random(5), 0
    while True:
        process = in_small_slices(work, tmp_path / "work.json")
        try:
            assert process.wait(rng.uniform(0.05, 0.5) * seconds if kills < 6 else 120) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 2
    assert result(work) == result(whole)


def in_small_slices(work: Work, path: Path) -> subprocess.Popen[str]:
    """The stage in a process of its own that has just become ready."""
    path.write_text(work.model_dump_json())
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'runtime'}"}
    small = KILLED.replace(
        'print("ready"',
        'from omr_runtime.stages import enough\nenough.SLICE_ROWS = 50\nprint("ready"',
    )
    process = subprocess.Popen(
        [sys.executable, "-c", small, str(path)], env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


# ---- the language ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("9 of (answer_matches)", "E305"),
        ("2.5 of (answer_matches)", "E305"),
        ("answer_matches", "E301"),
        ("2 of (len(question))", "E301"),
        ("2 of (format_ok, answer_matches)", "E308"),
        ("2 of (answr_matches)", "E201"),
    ],
)
def test_what_until_does_not_take(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.omr").write_text(RECIPE.replace("2 of (format_ok and answer_matches)", written))
    assert main(["check", "a.omr"]) == 1
    assert f"error[{said}]" in capsys.readouterr().err


def test_a_plan_has_the_samples_that_are_saved_as_a_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    declared = RECIPE.replace("  n  ", "  assume { keep = 50% .. 70% .. 90% }\n  n  ")
    Path("a.omr").write_text(declared)
    assert main(["fmt", "--check", "a.omr"]) == 0, capsys.readouterr()
    assert main(["plan", "--json", "a.omr"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (stage,) = [stage for stage in plan["stages"] if stage["name"] == "traces"]
    saved, rows = stage["costs"]["extra"]["samples_saved"], stage["costs"]["rows_out"]
    assert saved["lo"] < saved["mid"] < saved["hi"]
    assert saved["mid"] + rows["mid"] == pytest.approx(500 * 8)
    assert rows["mid"] == pytest.approx(500 * expected_until(8, 0.7, 2))


def test_another_number_or_condition_makes_other_rows_and_spacing_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def mark(text: str) -> str:
        Path("a.omr").write_text(text)
        assert main(["plan", "--json", "a.omr"]) == 0
        stages = json.loads(capsys.readouterr().out)["stages"]
        return next(str(stage["fingerprint"]) for stage in stages if stage["name"] == "traces")

    base = mark(RECIPE)
    assert mark(RECIPE.replace("2 of (format", "2 of ( format")) == base
    assert mark(RECIPE.replace("2 of", "3 of")) != base
    assert mark(RECIPE.replace("format_ok and ", "")) != base
