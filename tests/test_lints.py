"""Lints: what the pages of docs/errors cannot show. Each page's wrong and right recipe are run by test_error_pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.compiler import load
from omrlang.diagnostics import CODES
from omrlang.lints import LINTS
from omrlang.planning import make_plan
from omrlang.render import render
from omrlang.schema import Source

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "pipelines").glob("*.omr"))

HEAD = """omr 1

use std.formats
use std.models

source questions from jsonl("questions.jsonl") {
  columns { question = question, answer = answer, thinking = thinking }
}
"""
SFT = """
sft cold_start from questions with models.smollm2_135m {
  pack  = 1_024
  batch = 4 rows
  %s
  lr    = cosine(1e-5, warmup = 20 steps)
}
"""
EVAL = """
eval score from questions with models.smollm2_135m {
  prompt      = formats.think_answer
  temperature = 0
  max_tokens  = 64
  %s
}
"""
ROW = '{"question": "1 + 1?", "answer": "2", "thinking": "one and one"}\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("questions.jsonl").write_text(ROW * 40)


def checked(text: str) -> set[str]:
    """The codes that ``omr check`` finds."""
    path = Path("recipe.omr")
    path.write_text(text)
    recipe, found = load(path)
    assert recipe is not None, render(found)
    return {item.code for item in found}


def planned(text: str) -> list[str]:
    """The codes that ``omr plan`` adds to those."""
    before = checked(text)
    recipe, found = load(Path("recipe.omr"))
    assert recipe is not None
    plan = make_plan(recipe, Path("state"), Path("recipe.omr"), found)
    return [item.code for item in plan.diagnostics if item.code not in before]


def test_a_lint_is_named_as_its_code_and_says_which() -> None:
    modules = {lint.__name__.rpartition(".")[2].replace("_", "-"): lint for lint in LINTS}
    lints = {code.slug: code.code for code in CODES.values() if code.code.startswith("W1")}
    assert modules.keys() == lints.keys() - {"idle-allow"}
    for slug, module in modules.items():
        assert (module.__doc__ or "").startswith(f"{lints[slug]}: ")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_shipped_recipe_has_a_mistake(path: Path) -> None:
    _, found = load(path)
    assert not found, render(found)


def test_a_plan_knows_steps_and_rows() -> None:
    assert checked(HEAD + SFT % "epochs = 1") == set()
    assert "W118" in planned(HEAD + SFT % "epochs = 1")
    assert "W114" in planned(HEAD + SFT % "steps = 400")
    assert "W118" not in planned(HEAD + SFT % "epochs = 4")


def test_a_plan_counts_the_rows_of_a_benchmark() -> None:
    assert checked(HEAD + EVAL % "") == set()
    assert planned(HEAD + EVAL % "") == ["W122"]
    assert planned(HEAD + EVAL.replace("= 0", "= 1") % "n = 8") == []


def test_splits_of_one_set_are_apart() -> None:
    benchmark = (
        'benchmark test from hf("x/sums", split = "test", revision = "1") { contains = ["Sums"] }\n'
    )
    source = (
        'source sums from hf("x/%s", revision = "1") { contains = ["Sums"], licence = "MIT" }\n'
    )
    tail = (SFT.replace("questions", "sums") % "epochs = 1").replace("20 steps", "10%")
    tail += EVAL.replace("questions", "test").replace("models.smollm2_135m", "cold_start") % ""
    head = HEAD.partition("source")[0] + benchmark
    assert checked(head + source % "sums" + tail) == set()
    assert checked(head + source % "more_sums" + tail) == {"W106"}


def published() -> dict[str, list[tuple[str, ...]]]:
    """What the library's sets are made of, by the name that each gives itself, which stands first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name in ("sources", "benchmarks"):
        recipe, _ = load(ROOT / "stdlib" / f"{name}.omr")
        assert recipe is not None
        for spec in (stage.spec for stage in recipe.stages):
            if isinstance(spec, Source) and spec.contains:
                found.setdefault(spec.contains[0], []).append(spec.contains)
    return found


def test_names_of_published_sets_are_written_in_one_way() -> None:
    """`ChartQA` and `chart_qa` would never meet, and no overlap would be found."""
    names = {name for sets in published().values() for held in sets for name in held}
    folded = {re.sub(r"[^a-z0-9+]", "", name.lower()) for name in names}
    assert len(folded) == len(names)


def test_a_set_holds_what_its_parts_hold() -> None:
    sets = published()
    for held in (held for several in sets.values() for held in several):
        for part in held[1:]:
            for inner in sets.get(part, []):
                assert set(inner) <= set(held), f"{held[0]} contains {part}"


def test_a_warning_is_allowed_and_an_idle_allow_is_said() -> None:
    allow = 'allow W114 because "a test"\nallow W117 because "a test"\n'
    assert checked(HEAD + SFT % "epochs = 20") == {"W114"}
    assert checked(HEAD + allow + SFT % "epochs = 20") == {"W128"}


def test_a_denied_warning_is_an_error() -> None:
    Path("recipe.omr").write_text(HEAD + SFT % "epochs = 20")
    recipe, found = load(Path("recipe.omr"), deny=["W114"])
    assert recipe is None
    assert [item.severity for item in found] == ["error"]


def test_a_plan_denies_what_only_it_finds(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.omr").write_text(HEAD + EVAL % "")
    assert main(["plan", "recipe.omr"]) == 0
    assert main(["plan", "recipe.omr", "--deny", "W122"]) == 1
    assert main(["check", "recipe.omr", "--deny", "W122"]) == 0
    capsys.readouterr()
    assert main(["check", "recipe.omr", "--deny", "W12"]) == 64
    assert "no warning" in capsys.readouterr().err


def test_what_only_a_plan_finds_is_allowed() -> None:
    text = EVAL.replace("smollm2_135m", "smollm2_135m_hub") % ""
    assert sorted(planned(HEAD + text)) == ["W122", "W201"]
    allow = 'allow W122 because "a test"\nallow W201 because "a test"\n'
    assert planned(HEAD + allow + text) == []


def test_what_cannot_be_allowed() -> None:
    for code, word in (("W999", "no warning"), ("E203", "an error")):
        Path("recipe.omr").write_text(HEAD + f'allow {code} because "a test"\n')
        _, found = load(Path("recipe.omr"))
        assert [(item.code, word in item.message) for item in found] == [("E211", True)]


def test_a_plan_says_once_what_is_not_pinned() -> None:
    text = HEAD + (EVAL + EVAL.replace("score", "again")) % ("n = 1", "n = 1")
    found = planned(text.replace("smollm2_135m", "smollm2_135m_hub"))
    assert found.count("W201") == 1


PICTURED = """omr 1

use std.formats
use std.models

model tiny = fresh("llava_onevision", layers = 1, hidden = 32, heads = 2)

source photos from jsonl("photos.jsonl") {
  columns { question = q, answer = a, images = [i] }
}

source drawn from synthetic("shapes", n = 9, seed = 1)

rl better from %s with %s {
  prompt       = formats.think_answer
  algorithm    = grpo(clip = [0.2, 0.2])
  reward       = answer_matches
  group        = 4
  batch        = 4 prompts
  steps        = 3
  lr           = constant(1e-4)
  temperature  = 1
  max_prompt   = %s
  max_response = 32
}
"""


@pytest.mark.parametrize(
    ("rows", "model", "prompt", "fills"),
    [
        ("photos", "models.qwen2_5_vl_7b", 2_048, True),
        ("photos", "models.llava_1_5_7b", 600, False),
        ("photos", "models.llava_1_5_7b", 500, True),
        ("photos", "models.llava_onevision_7b", 2_048, True),
        ("photos", "tiny", 64, True),
        ("drawn", "tiny", 64, False),
    ],
)
def test_an_image_over_a_prompt(rows: str, model: str, prompt: int, fills: bool) -> None:
    """Some models bring every image to a size of their own; there the file's pixels and `max_pixels` say nothing."""
    Path("photos.jsonl").write_text('{"q": "1 + 1?", "a": "2", "i": "a.png"}\n')
    assert ("W108" in checked(PICTURED % (rows, model, prompt))) == fills
