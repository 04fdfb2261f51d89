"""``omr fix``: each folder of cases/fixes holds a recipe before and after; ``--update`` writes the latter."""

from __future__ import annotations

import re
import shutil
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.cli.fix import mended
from omrlang.compiler import load_all

CASES = sorted((Path(__file__).parent / "cases" / "fixes").iterdir())
PAGES = sorted((Path(__file__).parents[1] / "docs" / "errors").glob("E*.md"))


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found: Path = request.param
    shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return found


def test_before_becomes_after(case: Path, update: bool) -> None:
    main(["fix", "before.omr"])
    text = Path("before.omr").read_text()
    if update:
        (case / "after.omr").write_text(text)
    assert text == (case / "after.omr").read_text()


@pytest.mark.usefixtures("case")
def test_diff_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = Path("before.omr").read_text(), Path("after.omr").read_text()
    code = main(["fix", "--diff", "before.omr"])
    shown = capsys.readouterr().out
    assert Path("before.omr").read_text() == before
    assert (code == 1) or before == after
    changed = [
        line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert bool(changed) == (before != after)


@pytest.mark.usefixtures("case")
def test_nothing_is_left_to_fix_and_only_lines_that_were_fixed_moved() -> None:
    before = Path("before.omr").read_text()
    after, made, left = mended(Path("before.omr"), before)
    assert not [item for item in left if item.fix]
    edits = [edit for fix in made for edit in fix.edits]
    fixed = {edit.span.file.position(edit.span.start)[0] for edit in edits}
    added = {line for edit in edits for line in edit.text.splitlines()}
    old, new = before.splitlines(), after.splitlines()
    for tag, start, end, new_start, new_end in SequenceMatcher(None, old, new, False).get_opcodes():
        if tag == "insert":
            assert set(new[new_start:new_end]) <= added
        elif tag != "equal":
            assert set(range(start + 1, end + 1)) <= fixed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_fix_never_adds_an_error(page: Path, tmp_path: Path) -> None:
    """On the wrong recipe of every page: one with a fix comes out with fewer errors."""
    wrong = page.read_text().partition("## Wrong")[2].partition("```omr\n")[2].partition("```")[0]
    path = tmp_path / "recipe.omr"
    path.write_text(wrong)
    _, before = load_all(path)
    after, made, left = mended(path, wrong)
    assert (after != wrong) == bool(made)
    if made:
        assert sum(item.severity == "error" for item in left) < len(before)


QUICKSTART = Path(__file__).parents[1] / "pipelines" / "quickstart.omr"
KEYS = [
    (match.start(1), match[1])
    for match in re.finditer(r"^  ([a-z_]{4,})\s*(?:=|\{)", QUICKSTART.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize(("start", "key"), KEYS)
def test_a_dropped_letter_comes_back_or_nothing_is_done(
    start: int, key: str, tmp_path: Path
) -> None:
    """A fix never makes another recipe of a misspelt key than the one that was meant."""
    text = QUICKSTART.read_text()
    path = tmp_path / "recipe.omr"
    for at in range(1, len(key)):
        wrong = key[:at] + key[at + 1 :]
        path.write_text(text[:start] + wrong + text[start + len(key) :])
        after, made, left = mended(path, path.read_text())
        assert after == text if made else left, wrong


def test_most_dropped_letters_come_back(tmp_path: Path) -> None:
    path = tmp_path / "recipe.omr"
    text = QUICKSTART.read_text()
    wrong = [text[:start] + key[:2] + key[3:] + text[start + len(key) :] for start, key in KEYS]
    back = [mended(path, one)[0] == text for one in wrong]
    assert sum(back) >= 0.9 * len(back)
