"""What ``omr check`` found, as programs read it: JSON, SARIF, workflow commands; and ``omr explain``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from omrlang.cli import main
from omrlang.diagnostics import CODES
from omrlang.render.data import Findings

SCHEMAS = Path(__file__).parent / "schemas"
WRONG = """omr 1

use std.models

source questions from jsonl("questions.jsonl") { tak = 3_000 rwos }

source questions from jsonl("ü.jsonl")

filter short from questions { keep = answer matches "50%: a,b" and len(answr) < 5 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("my recipe.omr").write_text(WRONG)
    Path("right.omr").write_text("omr 1\n\nseed = 7\n")
    return tmp_path


def checked(form: str, *files: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["check", "--format", form, *files])
    return code, capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_json_places_what_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = checked("json", "my recipe.omr", "right.omr", capsys=capsys)
    found = Findings.model_validate_json(text)
    assert code == found.exit.code == 1
    assert found.exit.reason == "errors"
    first = found.findings[0]
    assert (first.code, first.page) == ("E203", "E203-unknown-key")
    for item in found.findings:
        start, end = item.place.start, item.place.end
        line = WRONG.splitlines()[start.line - 1]
        word = WRONG[start.offset : end.offset]
        assert line[start.column - 1 : start.column - 1 + len(word)] == word
    assert first.fix is not None
    assert first.fix.edits[0].text == "take"
    assert any(item.related for item in found.findings)


@pytest.mark.usefixtures("folder")
def test_json_of_a_right_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = checked("json", "right.omr", capsys=capsys)
    found = Findings.model_validate_json(text)
    assert code == 0
    assert not found.findings
    assert found.exit.reason == "ok"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("file", ["my recipe.omr", "right.omr"])
def test_sarif_is_valid(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = checked("sarif", file, capsys=capsys)
    schema = json.loads((SCHEMAS / "sarif-2.1.0.json").read_text())
    checker = jsonschema.Draft4Validator.FORMAT_CHECKER
    jsonschema.Draft4Validator(schema, format_checker=checker).validate(json.loads(text))


def test_sarif_says_what_json_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = checked("json", "my recipe.omr", capsys=capsys)
    found = Findings.model_validate_json(text).findings
    _, text = checked("sarif", "my recipe.omr", capsys=capsys)
    run = json.loads(text)["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert len(run["results"]) == len(found)
    for result, item in zip(run["results"], found, strict=True):
        place = result["locations"][0]["physicalLocation"]
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == item.code
        assert place["artifactLocation"]["uri"] == "my%20recipe.omr"
        assert place["region"]["startColumn"] == item.place.start.column
        assert ("fixes" in result) == (item.fix is not None)


def test_an_absolute_path_is_a_file_uri(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = checked("sarif", str(folder / "my recipe.omr"), capsys=capsys)
    place = json.loads(text)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == (folder / "my recipe.omr").as_uri()


@pytest.mark.usefixtures("folder")
def test_workflow_commands(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = checked("github", "my recipe.omr", capsys=capsys)
    command = re.compile(r"::(error|warning|notice) (\w+=[^:,]*(,\w+=[^:,]*)*)::(.+)")
    lines = text.splitlines()
    assert lines
    assert all(command.fullmatch(line) for line in lines)
    assert lines[0].startswith("::error file=my recipe.omr,line=5,col=50,endLine=5,endColumn=53,")


@pytest.mark.usefixtures("folder")
def test_concise_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "--format", "concise", "my recipe.omr"])
    *lines, verdict = capsys.readouterr().err.splitlines()
    assert all(re.match(r"my recipe\.omr:\d+:\d+: error\[E\d+\] ", line) for line in lines)
    assert re.search(r"\d errors; `omr fix` mends \d", verdict)


def test_the_documented_example_is_what_is_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "findings.md").read_text()
    shown = dict(re.findall(r"^```(text|json)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    Path("recipe.omr").write_text(shown["text"])
    _, text = checked("json", "recipe.omr", capsys=capsys)
    assert text == shown["json"]


# ---- omr explain -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["E203", "e203"])
def test_explain_prints_the_page(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", word]) == 0
    page = Path(__file__).parents[1] / "docs" / "errors" / f"{CODES['E203'].page}.md"
    assert capsys.readouterr().out == page.read_text()


def test_explain_knows_no_other_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "E999"]) == 64
    assert "`E999` is no code" in capsys.readouterr().err


def test_explain_opens_a_number_of_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipelines = Path(__file__).parents[1] / "pipelines"
    recipe, state = str(pipelines / "quickstart.omr"), ["--state", str(tmp_path)]
    assert main(["explain", recipe, "traces.rows", *state]) == 0
    said = capsys.readouterr().out
    assert said.startswith("traces.rows = 6,000 rows, formula\n  = rows x n\n")
    assert "rows  3,000 rows  formula" in said
    assert main(["explain", recipe, "cold_start.memory.logits", *state]) == 0
    assert "GiB" in capsys.readouterr().out
    assert main(["explain", recipe, "traces.rowz", *state]) == 64
    assert "`traces.rows` exists" in capsys.readouterr().err
    assert main(["explain", str(pipelines / "gsm8k.omr"), "reasoner.usd", *state]) == 0
    assert ", listed 20" in capsys.readouterr().out
