"""``omr explain CODE``: the page of a code, as it stands in the documentation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("explain", help="say what a code means, with an example and why")
    parser.add_argument("what", metavar="CODE", help="a code, such as E203")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, or 64 where there is no such code."""
    from omrlang.diagnostics import CODES, nearest

    code = CODES.get(args.what.upper())
    if code is None:
        near = nearest(args.what.upper(), CODES)
        hint = f"; `{near}` is near" if near else "; codes are such as E203 or W101"
        print(f"omr: `{args.what}` is no code{hint}", file=sys.stderr)
        return 64
    _show((pages() / f"{code.page}.md").read_text(encoding="utf-8"))
    return 0


def pages() -> Path:
    """In a wheel the pages lie inside the package, in a checkout in its documentation."""
    inside = Path(__file__).parents[1] / "_docs" / "errors"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "docs" / "errors"


def _show(text: str) -> None:
    """Laid out for a terminal; elsewhere as it is."""
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=min(100, Console().width)).print(Markdown(text))
