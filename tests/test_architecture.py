"""The house holds: layers, import rules, what starts without what, where SQL and Python may stand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "accelerate", "deepspeed", "vllm", "datasets", "ray"}
FOR_CHECK = HEAVY | {"duckdb", "pyarrow", "rich"}
FOR_PLAN = HEAVY | {"pyarrow"}


def test_import_contracts() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that one command imports, asked of a process of its own."""
    code = (
        "import sys; from omrlang.cli import main; code = main(sys.argv[1:]);"
        "print('MODULES', code, *{name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    last = result.stdout.strip().splitlines()[-1].split()
    assert last[:2] == ["MODULES", "0"], result.stdout + result.stderr
    return set(last[2:])


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        (["check", "pipelines/quickstart.omr"], FOR_CHECK),
        (["plan", "pipelines/quickstart.omr"], FOR_PLAN),
        (["diff", "pipelines/quickstart.omr", "pipelines/word_problems.omr"], FOR_PLAN),
    ],
)
def test_light_commands_import_nothing_heavy(
    command: list[str], forbidden: set[str], tmp_path: Path
) -> None:
    extra = [] if command[0] == "check" else ["--state", str(tmp_path / "state")]
    assert not imported_by(*command, *extra) & forbidden


def test_no_python_in_the_recipe_trees() -> None:
    """A Python file there would break the editable install and could run as code."""
    found = [*(ROOT / "stdlib").rglob("*"), *(ROOT / "pipelines").rglob("*")]
    files = [p for p in found if p.is_file() and ".omr" not in p.relative_to(ROOT).parts]
    assert {p.suffix for p in files} == {".omr"}


SQL = re.compile(
    r"\s*(select\b.+\bfrom\b|insert into\b|create (temp )?(table|view)\b|delete from\b|update \w+ set\b|with recursive\b)",
    re.IGNORECASE | re.DOTALL,
)
SQL_FILES = {"expressions.py", "relations.py", "queries.py"}


def test_sql_stands_in_four_places() -> None:
    for tree in ("omrlang", "runtime/omr_runtime"):
        for path in (ROOT / tree).rglob("*.py"):
            if path.name not in SQL_FILES and path.parent.name != "lineage":
                assert not list(filter(SQL.match, texts(path))), path


def texts(path: Path) -> Iterator[str]:
    """All strings of a module, its docstrings too: prose does not begin like a statement."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
