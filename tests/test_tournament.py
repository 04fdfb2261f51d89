"""Scores of finished evals beside published ones: which line says what, and that the two are never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plans
import pytest

from omr_runtime.errors import RunError
from omr_runtime.report.ran import find
from omr_runtime.report.tournament import tournament
from omr_runtime.store import State, empty_index, write_index
from omrlang.cli import main
from omrlang.schema import Eval


def judged(name: str, rows: tuple[str, ...]) -> Eval:
    return Eval(
        name=name,
        seed=7,
        rows=rows,
        model=plans.TEACHER,
        prompt=plans.PROMPT,
        temperature=0,
        max_tokens=64,
    )


def scores(accuracy: float) -> dict[str, float]:
    lo, hi = accuracy - 0.05, accuracy + 0.05
    return {"accuracy": accuracy, "accuracy_lo": lo, "accuracy_hi": hi, "num_questions": 10}


def finished(folder: Path, evals: dict[str, dict[str, Any]]) -> Path:
    """A state folder in which each eval has finished with these scores by benchmark."""
    state = State(folder / "state")
    benchmarks = dict.fromkeys(name for by_source in evals.values() for name in by_source)
    specs = [plans.source(name, f"{name}.jsonl") for name in benchmarks]
    made = plans.plan(
        [*specs, *(judged(name, tuple(by)) for name, by in evals.items())], state.folder, folder
    )
    index = empty_index()
    for name, by_source in evals.items():
        whole = {"accuracy": 0.5, "by_source": by_source}
        entry = {"name": name, "kind": "eval", "status": "done", "metrics": whole}
        index["stages"][made.stage(name).fingerprint] = entry
    state.plans.mkdir(parents=True)
    (state.plans / "run.json").write_text(made.model_dump_json())
    write_index(state, index)
    return state.folder


def test_measured_lines_stand_before_published_ones(tmp_path: Path) -> None:
    found = tournament(
        find(finished(tmp_path, {"after": {"benchmarks.aime24": scores(0.2), "own": scores(0.9)}}))
    )
    assert found.columns == ("aime24", "own")
    ours, *theirs = found.lines
    assert (ours.name, ours.kind, ours.origin) == ("teacher", "measured", "eval after")
    assert (ours.cells["aime24"].value, ours.cells["own"].lo) == (20.0, pytest.approx(85.0))
    assert ours.mean(found.columns) == pytest.approx(55.0)
    assert {line.origin for line in theirs} == {
        "OpenMMReasoner, table 8 (arXiv 2511.16334v4, 5 December 2025)"
    }
    assert [line.cells["aime24"].value for line in theirs] == [6.7, 16.7, 27.1]
    assert all(line.mean(found.columns) is None and line.kind == "published" for line in theirs)
    assert any("mean of eight" in note for note in found.notes)


def test_a_model_has_one_line_unless_a_benchmark_was_asked_twice(tmp_path: Path) -> None:
    evals = {
        "images": {"a": scores(0.1)},
        "text": {"b": scores(0.2)},
        "again": {"a": scores(0.3)},
    }
    found = tournament(find(finished(tmp_path, evals)))
    assert [(line.name, line.origin) for line in found.lines] == [
        ("teacher", "eval images, eval text"),
        ("teacher (again)", "eval again"),
    ]


def test_what_the_commands_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = finished(tmp_path, {"after": {"gpqa_diamond": scores(0.4)}})
    assert main(["show", "tournament", "--state", str(state)]) == 0
    shown = capsys.readouterr().out
    assert "measured      40.0 (35.0–45.0)" in shown
    assert "published 1" in shown
    assert "\n1: OpenMMReasoner, table 8" in shown
    assert main(["show", "tournament", "--json", "--state", str(state)]) == 0
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["measured", "published", "published", "published"]


def test_published_tables_are_shown_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "published"]) == 0
    assert "openmmreasoner.7" in capsys.readouterr().out
    assert main(["show", "published", "openmmreasoner.8"]) == 0
    assert "29.4" in capsys.readouterr().out
    assert main(["show", "published", "openmmreasoner.80"]) == 1
    assert "no published table `openmmreasoner.80`" in capsys.readouterr().err


def test_what_ran_is_found_by_recipe_and_by_run(tmp_path: Path) -> None:
    state = finished(tmp_path, {"after": {"a": scores(0.4)}})
    recipe = find(state).plan.recipe
    assert find(state, "run").plan == find(state, str(tmp_path / recipe)).plan
    with pytest.raises(RunError, match=r"nothing was run on .* under 'other.omr'; there are"):
        find(state, "other.omr")
    (State(state).plans / "run.json").write_text("{}")
    with pytest.raises(RunError, match="1 of its plans can only be read by another version"):
        find(state)
