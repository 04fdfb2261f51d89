"""Every fenced recipe and command in the documentation works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "errors"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
"""The pages of docs/errors have wrong recipes too; test_error_pages.py runs them."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LONG_OR_STATEFUL = {"run", "why", "why-not", "show", "funnel"}
"""These need a finished run; tests of the recipes and of the lineage type them."""


def fences(language: str) -> list[tuple[str, str]]:
    """(page, text) of each fenced block of a language."""
    return [
        (page.name, text)
        for page in PAGES
        for found, text in FENCE.findall(page.read_text())
        if found == language
    ]


def commands() -> list[str]:
    lines = [line for _, text in fences("console") for line in text.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def omr(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omrlang", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(("page", "text"), fences("omr"), ids=lambda value: value[:24].strip())
def test_recipes_check(page: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.omr"
    path.write_text(text)
    result = omr("check", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert omr("fmt", "--check", str(path)).returncode == 0


@pytest.mark.parametrize("command", commands())
def test_commands(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    assert words[0] == "omr", command
    if words[1] in LONG_OR_STATEFUL:
        assert omr(words[1], "--help").returncode == 0
        return
    state = [] if words[1] in ("check", "fmt", "schema") else ["--state", str(tmp_path)]
    result = omr(*words[1:], *state)
    assert result.returncode == 0, result.stdout + result.stderr
