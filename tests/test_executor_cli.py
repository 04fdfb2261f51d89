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


def names(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The stages that a run executed, by its own words."""
    capsys.readouterr()
    assert main(["run", "a.omr", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line.partition(".")[2] for line in lines if line.startswith("[") and ":" not in line]


def test_a_selection_runs_alone_and_the_rest_follows(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert names(capsys, "--select", "+traces") == ["puzzles", "traces"]
    assert planned(capsys) == ["words", "questions", "accepted"]
    assert main(["run", "a.omr", "--select", "questions"]) == 64
    assert "`--select +questions` selects it too" in capsys.readouterr().err
    assert names(capsys) == ["words", "questions", "accepted"]


def test_force_makes_again_what_is_there(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a.omr"]) == 0
    assert names(capsys, "--force", "traces") == ["traces", "accepted"]
    assert main(["funnel", "accepted"]) == 0, "nothing is counted twice"
    assert planned(capsys) == []


def test_equal_stages_run_once(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(RECIPE + '\nsource twin from synthetic("shapes", n = 30, seed = 1)\n')
    assert "twin" not in names(capsys)
    assert planned(capsys) == []


def test_why_a_stage_runs_again(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a.omr"]) == 0
    recipe.write_text(RECIPE.replace("n           = 2", "n           = 3"))
    capsys.readouterr()
    assert main(["why-rerun", "a.omr", "accepted"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "-/+ filter.accepted: traces changed  [parent_changed]",
        "  ~ sample.traces: n 2 -> 3; 60 samples are kept  [param_changed, partial_cache]",
        "      n  (rows)",
        "        last run  2",
        "        now       3   a.omr:16:17",
    ]
    assert main(["why-rerun", "a.omr", "puzzles"]) == 0
    assert capsys.readouterr().out == "source.puzzles does not run again: done\n"
    assert main(["why-rerun", "a.omr", "puzles"]) == 64
    assert "`puzzles` exists" in capsys.readouterr().err
    with open("words.jsonl", "a") as file:
        file.write('{"question": "one more?", "answer": "1"}\n')
    assert main(["why-rerun", "a.omr", "words", "--json"]) == 0
    [words] = json.loads(capsys.readouterr().out)
    assert (words["action"], words["reasons"]) == ("redo", ["source_revision_changed"])
    assert words["changes"][0]["path"] == "words.jsonl"


def test_a_stage_that_is_gone_is_told_once(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "a.omr"]) == 0
    recipe.write_text(RECIPE.partition("filter accepted")[0])
    capsys.readouterr()
    assert main(["plan", "a.omr"]) == 0
    assert "- filter accepted" in capsys.readouterr().out
    assert main(["run", "a.omr"]) == 0
    capsys.readouterr()
    assert main(["plan", "a.omr"]) == 0
    assert "accepted" not in capsys.readouterr().out
