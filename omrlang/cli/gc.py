"""``omr gc [--dry-run]``: delete what no recipe, no plan and no newest run needs any more, and say how many bytes that is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omrlang.cli.arguments import add_state
from omrlang.plan import Plan

if TYPE_CHECKING:
    from omr_runtime.garbage import Item


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("gc", help="delete what nothing needs any more")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument(
        "--samples",
        action="store_true",
        help="samples too that nothing was made of but what is deleted; asking a teacher again costs what it cost",
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.omrplan",
        help="a saved plan whose artifacts stay, as often as needed",
    )
    add_state(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Under the lock, so that no run makes what is being deleted."""
    from omr_runtime.errors import RunError
    from omr_runtime.executor import prepare
    from omr_runtime.garbage import needed, sweep, unneeded
    from omr_runtime.lock import hold
    from omr_runtime.store import State, read_index

    state = State(args.state)
    if not state.index.exists():
        print(f"error: {state.folder}: nothing was run here", file=sys.stderr)
        return 1
    try:
        with hold(state) as lock:
            prepare(state, lock)
            index = read_index(state)
            keep = needed(state, index, _plans(index, args))
            items = unneeded(state, index, keep, samples=args.samples)
            if not args.dry_run:
                sweep(state, index, items)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    _print(items, args.dry_run)
    return 0


def _plans(index: dict[str, Any], args: argparse.Namespace) -> Iterator[Plan]:
    """Of the saved plans that are named, and of each recipe that was run here, as its file stands now, all variants."""
    from omrlang.compiler import split_target
    from omrlang.planfile import read_plan

    for path in args.keep:
        yield read_plan(path)
    files = {split_target(Path(name.rpartition("::")[0]))[0] for name in index["names"]}
    for file in sorted(files):
        yield from _plans_of(file, args.state)


def _plans_of(file: Path, state: Path) -> Iterator[Plan]:
    from omrlang.compiler import load_all, variant_path
    from omrlang.planning import make_plan

    if not file.exists():
        return
    recipes, found = load_all(file, [])
    if not recipes:
        print(f"{file} has errors: what its last run made stays", file=sys.stderr)
    for recipe in recipes:
        yield make_plan(recipe, state, variant_path(file, recipe), found, ())


def _print(items: list[Item], dry_run: bool) -> None:
    total = sum(item.num_bytes for item in items)
    for item in sorted(items, key=lambda item: -item.num_bytes):
        print(f"{item.num_bytes:>16,} bytes  {item.what}")
    done = "would be deleted" if dry_run else "deleted"
    print(f"{total:>16,} bytes  {done}" if items else f"nothing {done}")
