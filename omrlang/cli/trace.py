"""``omr trace FILE``: what a file has to do with the runs of a state folder: the rows read from it, or what wrote it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omrlang.cli.arguments import add_state


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("trace", help="tell where a file went, or where it came from")
    parser.add_argument(
        "file",
        type=Path,
        help="a file that a source reads, a picture, a file of an artifact or a model, or rows that were exported",
    )
    add_state(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; 1 where the file has nothing to do with the state folder."""
    from omr_runtime.errors import RunError
    from omr_runtime.trace import trace

    try:
        print("\n".join(trace(args.state, args.file)))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
