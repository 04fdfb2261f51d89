"""``omr diff A B``: two recipes compared as experiments, not as texts."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from omrlang.cli.arguments import add_set, add_state, add_width
from omrlang.cli.plan import load_plan
from omrlang.diff import Diff
from omrlang.plan import Exit


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("diff", help="compare two recipes as experiments")
    parser.add_argument("a", type=Path, metavar="A", help="a recipe")
    parser.add_argument("b", type=Path, metavar="B", help="another")
    add_state(parser)
    add_set(parser, "set a value in both")
    parser.add_argument(
        "--set-b", action="append", default=[], metavar="PATH=VALUE", help="set a value in B alone"
    )
    parser.add_argument("--json", action="store_true", help="print the diff itself")
    add_width(parser)
    parser.add_argument(
        "--detailed-exitcode", action="store_true", help="exit 2 where the two differ in meaning"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan both, compare, print; the exit code of ``plan_and_diff.md``."""
    from omrlang.diff import diff

    a = load_plan(args.a, args.state, args.set)
    b = load_plan(args.b, args.state, [*args.set, *args.set_b])
    if a is None or b is None:
        return 1
    found = with_exit(diff(a, b), args.detailed_exitcode)
    print_diff(found, args)
    return found.exit.code


def with_exit(found: Diff, detailed: bool) -> Diff:
    """Code 2 says that the two differ in meaning; only when asked for."""
    differs = bool(found.factors) or any(
        stage.effect in ("added", "removed") for stage in found.stages
    )
    return (
        found.model_copy(update={"exit": Exit(code=2, reason="changes")})
        if detailed and differs
        else found
    )


def print_diff(found: Diff, args: argparse.Namespace) -> None:
    """In the form that was asked for."""
    if args.json:
        print(found.model_dump_json(indent=1))
        return
    from omrlang.cli.diff_text import diff_text

    print(diff_text(found, args.width or shutil.get_terminal_size((100, 24)).columns), end="")
