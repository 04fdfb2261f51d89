"""Ill-formed recipes: each page of cases/errors holds recipes and exactly what is said about them.

``pytest --update`` rewrites what is said; the change is then reviewed. A fence with a file name beside its language is
a file that lies beside the recipe.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omrlang.compiler import load
from omrlang.diagnostics import CODES
from omrlang.render import render

PAGES = sorted((Path(__file__).parent / "cases" / "errors").glob("*.md"))
DOCUMENTED = Path(__file__).parents[1] / "docs" / "errors"
_FENCE = re.compile(r"^```(\w+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Raised while a plan is made, so no recipe alone shows them.
ELSEWHERE = {"W201", "W202", "W203", "W204", "E402"}


def said(recipe: str) -> str:
    """What ``omr check`` would print about it. The working folder is where the recipe lies."""
    path = Path("case.omr")
    path.write_text(recipe)
    _, diagnostics = load(path)
    return render(diagnostics)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_errors(page: Path, update: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    new, at, actual = "", 0, ""
    for fence in _FENCE.finditer(text):
        language, name, body = fence.groups()
        if name:
            (tmp_path / name).write_text(body)
        elif language == "omr":
            actual = said(body)
            assert page.stem.split("-")[0] in actual or update, "the page shows its own code"
        elif language == "text":
            new += text[at : fence.start(3)] + actual
            at = fence.end(3)
    new += text[at:]
    if update:
        page.write_text(new)
    assert new == text or update


def test_every_code_has_a_page_of_its_slug() -> None:
    stems = {page.stem for page in (*PAGES, *DOCUMENTED.glob("W1*.md"))}
    missing = {
        f"{code.code}-{code.slug}" for code in CODES.values() if code.code not in ELSEWHERE
    } - stems
    assert not missing
    assert {stem.split("-")[0] for stem in stems} <= CODES.keys()


def test_a_page_says_what_it_is_about() -> None:
    for page in PAGES:
        first = page.read_text().splitlines()[0]
        assert first.startswith(f"# {page.stem.split('-')[0]}: "), page.name
