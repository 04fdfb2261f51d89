"""The pages of the documentation that run a recipe, command by command, as a reader types it.

A fence with a file name is a file that the reader writes; a ``console`` fence is what is typed; the ``text`` fence after
it is what is printed, where numbers, times and identifiers count only as such. ``pytest --update`` rewrites the prints.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^```(\w+)[ ]?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"\b[0-9a-f]{10,32}\b")


def typed(line: str, folder: Path) -> str:
    """What a command prints; it must succeed."""
    program, *arguments = shlex.split(line)
    command = {"omr": [sys.executable, "-m", "omrlang"], "python": [sys.executable]}[program]
    roots = [str(DOCS.parent), str(DOCS.parent / "runtime")]
    env = {**os.environ, "COLUMNS": "110", "PYTHONPATH": os.pathsep.join(roots)}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return re.sub(r"^\[\d+/\d+\].*\n", "", done.stdout.replace(str(folder), "."), flags=re.M)


def shape(text: str) -> list[str]:
    """The words of each line: numbers, identifiers and the widths of tables hang on the machine."""
    plain = re.sub(r"\d[\d,._]*[kMB]?|\b(s|min|hours?)\b|[─,<]", " ", ROW.sub("ID", text))
    return [" ".join(line.split()) for line in plain.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_walk(tmp_path: Path, update: bool) -> None:
    for told, printed in walk(DOCS / "walk.md", tmp_path, update):
        assert shape(told) == shape(printed)


def test_plan(tmp_path: Path, update: bool) -> None:
    for told, printed in walk(DOCS / "plan.md", tmp_path, update):
        assert shape(told) == shape(printed)


def test_duplicates(tmp_path: Path, update: bool) -> None:
    for told, printed in walk(DOCS / "duplicates.md", tmp_path, update):
        assert shape(told) == shape(printed)


def test_lineage(tmp_path: Path, update: bool) -> None:
    for told, printed in walk(DOCS / "lineage.md", tmp_path, update):
        assert shape(told) == shape(printed)


def walk(file: Path, tmp_path: Path, update: bool) -> list[tuple[str, str]]:
    """Type what a page has typed: what it tells of each print, and what is printed."""
    page, new, at, printed, row = file.read_text(), "", 0, "", ""
    found: list[tuple[str, str]] = []
    for fence in FENCE.finditer(page):
        language, name, body = fence.groups()
        if name:
            (tmp_path / name).write_text(body)
        if language == "omr":
            (tmp_path / (name or "recipe.omr")).write_text(body)
            typed(f"omr check {name or 'recipe.omr'}", tmp_path)
            typed(f"omr fmt --check {name or 'recipe.omr'}", tmp_path)
        elif language == "console":
            line = body.strip().removeprefix("$ ")
            asked = ROW.search(line)
            if asked:  # a row's name hangs on the code that read it
                new += page[at : fence.start(3)] + body.replace(asked[0], row[:10])
                at = fence.end(3)
                line = line.replace(asked[0], row[:10])
            printed = typed(line, tmp_path)
            names = ROW.search(printed)
            row = names[0] if names else row
        elif language == "text":
            new += (
                page[at : fence.start(3)]
                + "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
                + "\n"
            )
            at = fence.end(3)
            found.append((printed if update else body, printed))
    if update:
        file.write_text(new + page[at:])
    return found
