"""``omr why ROW`` and ``omr why-not ROW``: a row's whole life, or where it was dropped and by which rule."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omrlang.cli.plan import DEFAULT_STATE


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    for name, text in (
        ("why", "tell a row's life: source, teacher, verdicts, mixes, training steps"),
        ("why-not", "tell where a row was dropped and by which rule"),
    ):
        parser = subparsers.add_parser(name, help=text)
        parser.add_argument("row", help="the row's id or the start of it")
        parser.add_argument(
            "--state",
            type=Path,
            default=Path(DEFAULT_STATE),
            metavar="DIR",
            help="folder of runs (default .omr)",
        )
        parser.set_defaults(run=run, only_drops=name == "why-not")


def run(args: argparse.Namespace) -> int:
    """Print the life of the one row that the id means."""
    from omr_runtime import story
    from omr_runtime.errors import RunError

    try:
        lines = (
            story.why_not(args.state, args.row)
            if args.only_drops
            else story.why(args.state, args.row)
        )
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(lines))
    return 0
