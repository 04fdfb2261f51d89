"""``omr run`` as a command: what is planned is what runs, and what a person is told when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omr_runtime import lineage
from omr_runtime.store import State
from omrlang.cli import main

RECIPE = """\
omr 1

use std.formats

seed = 3

model teacher = scripted("shapes", right = 70%)

source words from jsonl("words.jsonl")

source puzzles from synthetic("shapes", n = 30, seed = 1)

mix questions from [words: all, puzzles: all]

sample traces from puzzles with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter accepted from traces { keep = format_ok and answer_matches }
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.jsonl").write_text(
        "".join(
            json.dumps({"question": f"what is {n}?", "answer": str(n)}) + "\n" for n in range(20)
        )
    )
    path = tmp_path / "a.omr"
    path.write_text(RECIPE)
    return path


def planned(capsys: pytest.CaptureFixture[str], *settings: str) -> list[str]:
    """The stages that `plan` says will run."""
    capsys.readouterr()
    assert main(["plan", "a.omr", "--json", *settings]) == 0
    plan = json.loads(capsys.readouterr().out)
    return [stage["name"] for stage in plan["stages"] if stage["action"] != "cached"]


def executed() -> list[str]:
    """The stages that the last run executed, as the lineage has it."""
    with lineage.read(State(".omr").lineage) as reader:
        found: list[str] = json.loads(reader.runs()[-1]["stages"])
        return found


def test_what_is_planned_is_what_runs(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits: list[tuple[str, ...]] = [
        (),
        ("--set", "traces.n=3"),
        ("--set", "puzzles.take=20"),
        ("--set", "questions.shuffle=false"),
    ]
    seen = []
    for settings in edits:
        due = planned(capsys, *settings)
        assert main(["run", "a.omr", *settings]) == 0
        assert executed() == due
        assert planned(capsys, *settings) == []
        seen.append(due)
    assert seen == [
        ["words", "puzzles", "questions", "traces", "accepted"],
        ["traces", "accepted"],
        ["puzzles", "questions", "traces", "accepted"],
        ["questions"],
    ]


def test_a_renamed_stage_runs_nothing(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a.omr"]) == 0
    recipe.write_text(RECIPE.replace("questions", "asked"))
    assert planned(capsys) == []
    assert main(["run", "a.omr"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["funnel", "asked"]) == 0


def test_changed_data_are_read_again(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a.omr"]) == 0
    with open("words.jsonl", "a") as file:
        file.write('{"question": "one more?", "answer": "1"}\n')
    assert planned(capsys) == ["words", "questions"]
    assert main(["run", "a.omr"]) == 0
    assert executed() == ["words", "questions"]


def test_every_stage_adds_up_and_every_kept_trace_has_its_path(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "a.omr"]) == 0
    for stage in ("words", "puzzles", "questions", "traces", "accepted"):
        assert main(["funnel", stage]) == 0
    capsys.readouterr()
    assert main(["show", "rows", "accepted", "-n", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row in rows:
        assert main(["why", row["id"][:12]]) == 0
        told = capsys.readouterr().out
        for part in (
            "source.puzzles", "read from synthetic('shapes'), row", "by teacher (scripted", "temperature 1", "max_tokens 64",
            "engine scripted", "format_ok: yes", "answer_matches: yes",
        ):  # fmt: skip
            assert part in told


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("words.jsonl", "gone.jsonl", 1, "gone.jsonl"),
        ("temperature = 1.0", "temperatur = 1.0", 1, "temperatur"),
        ("filter accepted", "filtre accepted", 1, "filtre"),
        ("with teacher", 'with models.nothing', 1, "models"),
    ],
    ids=["missing file", "unknown key", "unknown kind", "unknown model"],
)  # fmt: skip
def test_what_a_person_is_told(
    recipe: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, code: int, said: str
) -> None:
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new))
    assert main(["run", "a.omr"]) == code
    out = capsys.readouterr()
    assert said in out.out + out.err
    assert "Traceback" not in out.out + out.err


def test_a_recipe_that_is_not_there(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "b.omr"]) == 1
    assert "b.omr" in capsys.readouterr().err
