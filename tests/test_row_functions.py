"""A recipe with everything that a row expression may ask, from its text to the rows that stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omr_runtime.store import State
from omr_runtime.work import InputRows, read_rows
from omrlang.cli import main
from omrlang.compiler import load
from omrlang.planning import make_plan

RECIPE = """omr 1

use std.formats

seed = 3

model small = fresh("qwen2", layers = 1, hidden = 32, heads = 2, vocabulary = "characters")

model teacher = scripted("shapes", right = 50%)

verifier short = python("rewards:short") { version = 1 }

benchmark test from jsonl("test.jsonl")

source questions from jsonl("train.jsonl") {
  columns {
    question    = question
    answer      = text(raw["the answer"])
    extra.level = level
  }
  where = tokens(question, small) <= 40
}

filter clean from questions {
  keep = not seen_in(test, n = 5) and question matches "^[A-Z]" and extra.level is not null and short
}

source puzzles from synthetic("shapes", n = 40, seed = 1)

sample probe from puzzles with teacher {
  n           = 4
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter probe_ok from probe { keep = answer_matches }

filter middle from puzzles { keep = pass_rate(probe_ok) in 25% .. 75% }
"""

TRAIN = [
    {"question": "How many apples are there", "the answer": 4, "level": 1},
    {"question": "What is the sum of two and three", "the answer": "5", "level": 2},
    {"question": "lower case", "the answer": "6", "level": 2},
    {"question": "No level", "the answer": "7"},
    {"question": "Too long for a tokenizer that counts characters", "the answer": 8, "level": 1},
    {"question": "Refused by code", "the answer": "long answer", "level": 1},
]


@pytest.mark.slow
def test_from_text_to_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in TRAIN))
    Path("test.jsonl").write_text(
        json.dumps({"question": "So what is the sum of two numbers", "answer": "9"})
    )
    Path("rewards.py").write_text("def short(row):\n    return len(row['answer']) < 3\n")
    path = Path("r.omr")
    path.write_text(RECIPE)
    recipe, found = load(path)
    assert recipe is not None, found
    plan = make_plan(recipe, Path(".omr"), path)
    assert plan.stage("clean").parents == ("questions", "test")
    assert plan.stage("middle").parents == ("puzzles", "probe_ok")
    assert main(["run", "r.omr"]) == 0, capsys.readouterr()

    def questions(name: str) -> list[str]:
        mark = plan.stage(name).fingerprint
        folder = State(Path(".omr")).artifact(mark)
        rows = read_rows([InputRows(name=name, fingerprint=mark, folder=str(folder))])
        return sorted(row["question"] for row in rows)

    assert questions("clean") == ["How many apples are there"]
    assert len(questions("questions")) == 5
    assert 0 < len(questions("middle")) < 40
    capsys.readouterr()
    assert main(["funnel", "clean"]) == 0
    funnel = capsys.readouterr().out
    for reason in ("not seen_in(test, n = 5)", 'question matches "^[A-Z]"', "short"):
        assert reason in funnel
