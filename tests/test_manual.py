"""docs/reference is what the schema says now; ``--update`` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omrlang.declared import clauses, settings
from omrlang.diagnostics import CODES
from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.manual import FOLDER, main, pages
from omrlang.schema import KINDS
from omrlang.scope import THINGS
from omrlang.types import UNITS

PAGES = pages()


def test_there_are_these_pages_and_no_others(update: bool) -> None:
    if update:
        main([])
    assert {path.name for path in FOLDER.iterdir()} == PAGES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_not_stale(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name], "`python -m omrlang.manual` writes it anew"


def test_everything_that_is_declared_is_there() -> None:
    for kind in KINDS:
        for key in (*settings(kind).values(), *clauses(kind).values()):
            assert f"| `{key.name}`" in PAGES[f"{kind}.md"]
            assert key.setting.doc.replace("|", "\\|") in PAGES[f"{kind}.md"]
    for thing in THINGS:
        assert f"## `{thing}`" in PAGES["things.md"]
        assert all(f"| `{key}` |" in PAGES["things.md"] for key in settings(thing))
    assert all(f"| `{name}" in PAGES["functions.md"] for name in (*FUNCTIONS, *COLUMNS))
    assert all(f"| `{unit}` |" in PAGES["units.md"] for unit in UNITS)
    assert all(f"[{code}]" in PAGES["diagnostics.md"] for code in CODES)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_without_a_meaning(name: str) -> None:
    rows = [line.split(" | ") for line in PAGES[name].splitlines() if line.startswith("| `")]
    assert not [row[0] for row in rows if row[-1].strip(" |") == "" and name != "units.md"]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[name]):
        assert (FOLDER / target).exists() or (FOLDER / target).name in PAGES, target


def test_the_command_writes_into_any_folder(tmp_path: Path) -> None:
    assert main([str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == PAGES.keys()
