"""``omr fix FILE…``: mistakes with one possible remedy are mended in place; ``--diff`` only shows how."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.files import replace_text

if TYPE_CHECKING:
    from omrlang.diagnostics import Diagnostic, Fix

MAX_ROUNDS = 50
"""A mended mistake can uncover others; so many times over is more than any file has layers."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("fix", help="mend what only one thing can be meant by")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a recipe")
    parser.add_argument(
        "--diff", action="store_true", help="change nothing; show what would be changed"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 if no file has errors left (with ``--diff``: had any), 1 otherwise."""
    return max(_fix(path, only_show=args.diff) for path in args.files)


def _fix(path: Path, *, only_show: bool) -> int:
    before = _read(path)
    if before is None:
        return 1
    after, made, left = mended(path, before)
    if only_show:
        print(_diff(path, before, after), end="")
        return int(bool(made) or _num_errors(left) > 0)
    if made and not replace_text(path, after):
        return 1
    _report(path, made, left)
    return int(_num_errors(left) > 0)


def mended(path: Path, text: str) -> tuple[str, list[Fix], list[Diagnostic]]:
    """A recipe's text with its fixes made, over and over until none is left; the fixes; what is still wrong."""
    from omrlang.compiler import load_all
    from omrlang.fixes import apply, is_of
    from omrlang.unsaved import held

    made: list[Fix] = []
    found: list[Diagnostic] = []
    for _ in range(MAX_ROUNDS):
        with held({path.resolve(): text}):
            _, found = load_all(path)
        fixes = [item.fix for item in found if item.fix and is_of(item.fix, path)]
        text, now = apply(text, fixes)
        made += now
        if not now:
            break
    return text, made, found


def _read(path: Path) -> str | None:
    from omrlang.diagnostics import Reporter
    from omrlang.files import read_source
    from omrlang.render import render

    reporter = Reporter()
    source = read_source(path, path, None, reporter)
    if source is None:
        print(render(reporter.sorted()), end="", file=sys.stderr)
    return source.text if source else None


def _num_errors(found: list[Diagnostic]) -> int:
    return sum(item.severity == "error" for item in found)


def _diff(path: Path, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        str(path),
        str(path),
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _report(path: Path, made: list[Fix], left: list[Diagnostic]) -> None:
    from omrlang.render import concise

    for fix in made:
        line, column = fix.edits[0].span.file.position(fix.edits[0].span.start)
        print(f"{path}:{line}:{column}: {fix.message}")
    errors = _num_errors(left)
    print(f"{path}: {_count(len(made), 'fix', 'fixes')}, {_count(errors, 'error', 'errors')} left")
    for item in left:
        if item.severity == "error":
            print(concise(item), file=sys.stderr)


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
