"""Ill-formed recipes: each case of cases/errors holds recipes and exactly what is said about them. Each code has a page
in docs/errors (``test_error_pages.py``); here are the further forms that a code has.

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
_FENCE = re.compile(r"^```(\w+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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


def test_a_page_says_what_it_is_about() -> None:
    for page in PAGES:
        first = page.read_text().splitlines()[0]
        code = page.stem.split("-")[0]
        assert code in CODES
        assert first.startswith(f"# {code}: "), page.name
