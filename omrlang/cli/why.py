"""``omr why ROW``: a row's whole life, from its source to the training steps that used it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from omrlang.cli.arguments import add_state


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("why", help="tell a row's whole life")
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``why-not`` too."""
    parser.add_argument("row", help="the row's id or the start of it")
    add_state(parser)


def run(args: argparse.Namespace) -> int:
    """Print the life of the one row that the id means."""
    from omr_runtime.story import why

    return tell(args, why)


def tell(args: argparse.Namespace, story: Callable[[Path, str], list[str]]) -> int:
    """Print what ``story`` knows of the row."""
    from omr_runtime.errors import RunError

    try:
        lines = story(args.state, args.row)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(lines))
    return 0
