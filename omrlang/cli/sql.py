"""``omr sql "select …"``: the lineage, and the rows of every stage as a view of its name, read-only."""

from __future__ import annotations

import argparse
import sys

from omrlang.cli.arguments import add_state


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("sql", help="ask the lineage and the rows in SQL")
    parser.add_argument(
        "query", help="one statement of DuckDB's SQL; `show tables` lists what there is"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_state(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the query gives; 1 where it is wrong."""
    from omr_runtime.errors import RunError
    from omr_runtime.story import ask
    from omrlang.cli.show import print_records

    try:
        print_records(ask(args.state, args.query), args.json)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
