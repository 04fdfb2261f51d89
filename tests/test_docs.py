"""Every fenced recipe and command in the documentation works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ELSEWHERE = ("errors", "walk.md", "duplicates.md", "plan.md", "lineage.md")
"""The pages of docs/errors have wrong recipes too; test_error_pages.py runs them, test_walk.py the walk."""
DOCS = [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if page.name not in ELSEWHERE and page.parent.name not in ELSEWHERE
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
FENCE = re.compile(r"^```(\w*)[ ]?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""Language, file name, text: a fence with a name is a file that lies beside the recipes after it."""
LONG_OR_STATEFUL = {"run", "why", "why-not", "show", "funnel", "report"}
"""These need a finished run; tests of the recipes and of the lineage type them."""


def commands() -> list[str]:
    fences = [fence for page in PAGES for fence in FENCE.findall(page.read_text())]
    lines = [line for kind, _, text in fences if kind == "console" for line in text.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def omr(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omrlang", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_check(page: Path, tmp_path: Path) -> None:
    for number, (kind, name, text) in enumerate(FENCE.findall(page.read_text())):
        path = tmp_path / (name or f"recipe{number}.omr")
        if name or kind == "omr":
            path.write_text(text)
        if kind == "omr":
            result = omr("check", str(path))
            assert result.returncode == 0, result.stdout + result.stderr
            assert omr("fmt", "--check", str(path)).returncode == 0, text


@pytest.mark.parametrize("command", commands())
def test_commands(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    assert words[0] == "omr", command
    if words[1] in LONG_OR_STATEFUL and words[1:3] != ["show", "recipe"] and "--emit" not in words:
        assert omr(words[1], "--help").returncode == 0
        return
    state = ["--state", str(tmp_path)] if words[1] in ("plan", "diff", "run") else []
    result = omr(*words[1:], *state)
    assert result.returncode == 0, result.stdout + result.stderr
