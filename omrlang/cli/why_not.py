"""``omr why-not ROW``: where a row was dropped and by which rule, or where it still is."""

from __future__ import annotations

import argparse

from omrlang.cli.why import add_arguments, tell


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("why-not", help="tell where a row was dropped")
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print where the row was dropped, with the verdicts of that stage."""
    from omr_runtime.story import why_not

    return tell(args, why_not)
