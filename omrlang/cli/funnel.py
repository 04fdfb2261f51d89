"""``omr funnel STAGE``: what came in, what was kept, what was dropped and why, by source."""

from __future__ import annotations

import argparse
import sys

from omrlang.cli.arguments import add_state


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("funnel", help="count a stage's rows by source and reason")
    parser.add_argument("stage", help="the stage's name or the start of its fingerprint")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    add_state(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the counts; exit 1 where they do not add up."""
    from omr_runtime.errors import RunError
    from omr_runtime.funnel import count

    try:
        funnel = count(args.state, args.stage)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(funnel.as_json() if args.json else funnel.text())
    return 0 if funnel.adds_up else 1
