"""``omr fmt FILE…``: formatted in place; ``--check`` only says which files are not; ``-`` reads standard input."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omrlang.cli.files import replace_text


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("fmt", help="format recipes")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a recipe, or -")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a file is not formatted"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 if all went well, 1 if a file does not parse or, with ``--check``, is not formatted."""
    codes = [_format(path, check=args.check) for path in args.files]
    return max(codes)


def _format(path: Path, *, check: bool) -> int:
    from omrlang.diagnostics import Reporter
    from omrlang.files import read_source
    from omrlang.format import format_file
    from omrlang.parse import parse
    from omrlang.render import render
    from omrlang.source import SourceFile

    reporter = Reporter()
    is_stdin = str(path) == "-"
    source = (
        SourceFile(path, sys.stdin.read()) if is_stdin else read_source(path, path, None, reporter)
    )
    tree = parse(source, reporter) if source is not None else None
    if source is None or tree is None or reporter.has_errors:
        print(render(reporter.sorted()), end="", file=sys.stderr)
        return 1
    text = format_file(tree)
    if is_stdin:
        print(text, end="")
        return 0
    return _leave(path, source.text, text, check=check)


def _leave(path: Path, before: str, after: str, *, check: bool) -> int:
    if before == after:
        return 0
    if check:
        print(f"{path} is not formatted", file=sys.stderr)
        return 1
    if not replace_text(path, after):
        return 1
    print(f"{path} formatted")
    return 0
