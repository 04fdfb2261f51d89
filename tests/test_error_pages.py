"""The pages of docs/errors: each in the form that its README describes, and each true when it is run.

``pytest --update`` writes what is printed about the wrong recipe; the change is then reviewed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.compiler import load_all
from omrlang.diagnostics import CODES, Diagnostic
from omrlang.render import render

FOLDER = Path(__file__).parents[1] / "docs" / "errors"
PAGES = sorted(FOLDER.glob("[A-Z][0-9]*.md"))
FENCE = re.compile(r"^```(\w+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPE = Path("recipe.omr")


@dataclass(frozen=True)
class Side:
    """A section's recipe, the command that shows the code (``omr check`` if none stands there), what is printed."""

    recipe: str
    command: list[str] | None
    printed: re.Match[str] | None


def sections(text: str) -> dict[str, str]:
    """The text under each heading; what the code means stands under the empty one."""
    head, *rest = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {"": head, **dict(zip(rest[::2], rest[1::2], strict=True))}


def side(section: str) -> Side:
    """What a section says; files that lie beside the recipe are written."""
    recipe, command, printed = "", None, None
    for fence in FENCE.finditer(section):
        language, name, body = fence.groups()
        if name:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(body)
        elif language == "omr":
            recipe = body
        elif language == "console":
            command = shlex.split(body.removeprefix("$ omr "))
        elif language == "text":
            printed = fence
    RECIPE.write_text(recipe)
    return Side(recipe, command, printed)


def of(code: str, found: list[Diagnostic]) -> Iterator[Diagnostic]:
    return (item for item in found if item.code == code)


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # what is printed is wrapped as on the page
    found: Path = request.param
    return found


def test_form(page: Path) -> None:
    code = CODES[page.stem.split("-")[0]]
    parts = sections(page.read_text())
    assert page.stem == f"{code.code}-{code.slug}"
    title, _, meaning = parts[""].partition("\n")
    assert title == f"# {code.code}: {code.summary}"
    assert meaning.strip(), "it says what the code means"
    assert [*parts] == ["", "Wrong", "Right", "Why"]
    assert all(text.strip() for text in parts.values())


def test_wrong_is_wrong(page: Path, update: bool, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text()
    wrong = side(sections(text)["Wrong"])
    assert wrong.printed is not None, "what is printed stands on the page"
    if wrong.command is not None:
        main(wrong.command)
        shown = capsys.readouterr()
        assert wrong.printed[3] in shown.out + shown.err
        assert page.stem.split("-")[0] in wrong.printed[3]
        return
    _, found = load_all(RECIPE)
    assert {item.code for item in found} == {page.stem.split("-")[0]}
    if update:
        page.write_text(text.replace(wrong.printed[0], f"```text\n{render(found)}```", 1))
    else:
        assert wrong.printed[3] == render(found)


def test_right_is_right(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = page.stem.split("-")[0]
    parts = sections(page.read_text())
    side(parts["Wrong"])  # its files lie beside the right recipe too
    right = side(parts["Right"])
    assert right.recipe
    _, found = load_all(RECIPE)
    assert not [item for item in found if item.severity == "error"], render(found)
    assert not [*of(code, found)], render(found)
    if right.command is not None:
        assert main(right.command) == 0
        shown = capsys.readouterr()
        assert code not in shown.out + shown.err


def test_every_code_has_a_page() -> None:
    assert {page.stem for page in PAGES} == {f"{code.code}-{code.slug}" for code in CODES.values()}
