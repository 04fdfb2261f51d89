"""``omr show runs|stages|rows``: what was run, which artifacts there are, some rows of one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omrlang.cli.arguments import add_state


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("show", help="show runs, stages, or some rows of a stage")
    parser.add_argument("what", choices=("runs", "stages", "rows"))
    parser.add_argument(
        "stage", nargs="?", help="for rows: the stage's name or the start of its fingerprint"
    )
    parser.add_argument("-n", type=int, default=5, metavar="N", help="how many rows (default 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_state(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the lineage or a stage's Parquet files; print."""
    from omr_runtime.errors import RunError

    try:
        match args.what:
            case "runs":
                _print(_runs(args.state), args.json)
            case "stages":
                _print(_stages(args.state), args.json)
            case _:
                return _rows(args)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _runs(state: Path) -> list[dict[str, Any]]:
    from omr_runtime import story

    return story.runs(state)


def _stages(state: Path) -> list[dict[str, Any]]:
    from omr_runtime import story

    return story.stages(state)


def _rows(args: argparse.Namespace) -> int:
    from omr_runtime import story

    if args.stage is None:
        print("error: `omr show rows` needs the name of a stage", file=sys.stderr)
        return 64
    for row in story.rows(args.state, args.stage, args.n):
        print(json.dumps(row, ensure_ascii=False) if args.json else _block(row))
    return 0


def _block(row: dict[str, Any]) -> str:
    """One row over several lines, without its empty columns."""
    shown = [(name, value) for name, value in row.items() if value not in (None, [], "")]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{width}}  {_flat(value)}" for name, value in shown) + "\n"


def _flat(value: Any) -> str:
    return str(value).replace("\n", "\\n")


def _print(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    if not rows:
        print("none")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(
            name.replace("_", " "), justify="right" if isinstance(value, int | float) else "left"
        )
    for row in rows:
        table.add_row(
            *(
                "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
                for value in row.values()
            )
        )
    console.print(table)
