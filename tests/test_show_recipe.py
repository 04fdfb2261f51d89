"""``omr show recipe``: every value with the layer that set it and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.cli.recipe_text import Section, sections
from omrlang.compiler import load_all
from omrlang.references import declarations
from omrlang.types import Clause

RECIPES = sorted((Path(__file__).parents[1] / "pipelines").rglob("*.omr"))
BASE = """omr 1

use std.formats
use std.models

seed = 17

source puzzles from jsonl("puzzles.jsonl") { columns { question = q, answer = a } }

sample traces from puzzles with models.smollm2_135m {
  n           = 8
  prompt      = formats.think_answer
  temperature = 1.0
  max_tokens  = 64
}

budget { p90 = $50 }
"""
EXPLICIT = """
use std.formats

model m = hf("a/b", revision = none)

source questions from synthetic("shapes", n = 30, seed = 1)

sft train from questions with m {
  prompt    = formats.think_answer
  pack      = 512
  batch     = 1 packs
  steps     = 10
  lr        = cosine(1e-3, floor = 0)
  optimizer = adamw(eps = 1e-8)
}
"""
AMENDING = """amend "base.omr"

because "is it worth twice the cost?"

traces { n = 4, temperature = sweep(0.5, 0.9) }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base.omr").write_text(BASE)
    Path("x4.omr").write_text(AMENDING)
    return tmp_path


def section(name: str, *overrides: str, file: str = "x4.omr") -> dict[str, tuple[str, str, str]]:
    """Of each value of a stage or thing: its text, its layer, its place."""
    recipes, found = load_all(Path(file), overrides)
    assert recipes, found
    made = {part.name: part for part in sections(recipes[-1])}[name]
    return {value.path: (value.text, value.origin.layer, value.place) for value in made.values}


@pytest.mark.usefixtures("folder")
def test_every_layer_is_named_with_its_place() -> None:
    traces = section("traces", "traces.max_tokens=32")
    assert traces["top_p"] == ("1", "default", "")
    assert traces["from"] == ("puzzles", "file", "base.omr:10")
    assert traces["prompt"] == ("formats.think_answer", "file", "base.omr:12")
    assert traces["n"] == ("4", "amend", "x4.omr:5")
    assert traces["temperature"] == ("0.9", "sweep", "x4.omr:5")
    assert traces["max_tokens"] == ("32", "set", "--set:1")


@pytest.mark.usefixtures("folder")
def test_values_of_the_standard_library_have_their_place_there() -> None:
    model = section("models.smollm2_135m")
    text, layer, place = model["shape.layers"]
    assert (text, layer) == ("30", "stdlib")
    assert place.startswith("std/models.omr:")
    assert model["engine"][1] == "default"
    assert model["source"][:2] == ("wheel", "stdlib")


@pytest.mark.usefixtures("folder")
def test_the_recipe_has_values_of_its_own() -> None:
    own = section("base.omr", file="base.omr")
    assert own == {
        "seed": ("17", "file", "base.omr:6"),
        "budget.p90": ("$50", "file", "base.omr:17"),
    }


def test_an_argument_that_is_given_what_it_has_by_itself_is_given(tmp_path: Path) -> None:
    path = tmp_path / "r.omr"
    path.write_text(EXPLICIT)
    (recipe, *_), _ = load_all(path)
    found = {part.name: {v.path: v.origin.layer for v in part.values} for part in sections(recipe)}
    assert found["m"]["source.revision"] == "file"
    train = found["train"]
    assert (train["lr.floor"], train["lr.warmup"]) == ("file", "default")
    assert (train["optimizer.eps"], train["optimizer.betas"]) == ("file", "default")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_nothing_is_left_out(path: Path) -> None:
    """Each clause and setting of each stage of the shipped recipes, once, and a place for what is no default."""
    (recipe, *_), _ = load_all(path)
    found: dict[str, Section] = {part.name: part for part in sections(recipe)}
    for stage in recipe.stages:
        paths = [value.path for value in found[stage.spec.name].values]
        assert len(paths) == len(set(paths))
        heads = {value.partition(".")[0] for value in paths}
        for name, item in declarations(stage.spec):
            assert (item.word if isinstance(item, Clause) else item.key or name) in heads
    for part in found.values():
        for value in part.values:
            assert (value.place == "") == (value.origin.layer == "default"), value


@pytest.mark.usefixtures("folder")
def test_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "recipe", "base.omr", "--resolved"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["n", "8", "file", "base.omr:11"] for line in lines)
    assert main(["show", "recipe", "base.omr", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"kind": "sample", "name": "traces", "path": "n", "value": "8", "layer": "file", "place": "base.omr:11"} in rows  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_the_short_form_shows_what_was_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "recipe", "x4.omr"]) == 0
    first, *_ = capsys.readouterr().out.split("\n\nx4.omr[")
    assert first.splitlines() == [
        "x4.omr[traces.temperature=0.5] · seed 17",
        "because is it worth twice the cost?",
        "",
        "source puzzles from jsonl(path = puzzles.jsonl)",
        "  columns = { question = q, answer = a }",
        "",
        "sample traces from puzzles with models.smollm2_135m",
        "  temperature = 0.5",
        "  n = 4",
        "  prompt = formats.think_answer",
        "  max_tokens = 64",
    ]


@pytest.mark.usefixtures("folder")
def test_a_wrong_recipe_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.omr").write_text("omr 1\nsede = 3\n")
    assert main(["show", "recipe", "wrong.omr"]) == 1
    assert "E203" in capsys.readouterr().err
    assert main(["show", "recipe"]) == 64
