"""``omr show recipe|sharding|runs|stages|rows|tournament|paired|published``: every value of a recipe; what its trainings' models
are cut up by; what was run, which artifacts there are, some rows, what models scored, alone and on the same items, what papers
printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omrlang.cli.arguments import add_set, add_state

if TYPE_CHECKING:
    from omrlang.hir import Recipe


WHAT = (
    "recipe",
    "sharding",
    "runs",
    "stages",
    "rows",
    "steps",
    "tournament",
    "paired",
    "published",
)


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("show", help="show a recipe, runs, stages, rows or scores")
    parser.add_argument("what", type=_what, metavar=" | ".join([*WHAT, "FILE.omrplan"]))
    parser.add_argument(
        "name",
        nargs="?",
        help="for recipe and sharding: the recipe's file; for rows and steps: the stage's name or the start of its fingerprint; "
        "for tournament and paired: a recipe or a run (default: the last one); for published: a table",
    )
    parser.add_argument(
        "--resolved",
        action="store_true",
        help="for recipe: every value with the layer that set it (default, stdlib, file, amend, sweep, set) and where",
    )
    add_set(parser)
    parser.add_argument(
        "--with",
        dest="results",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="for tournament: a result file of lm-eval or lmms-eval",
    )
    parser.add_argument("-n", type=_many, default=5, metavar="N", help="how many rows (default 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_state(parser)
    parser.set_defaults(run=run)


def _what(word: str) -> str:
    if word in WHAT or word.endswith(".omrplan"):
        return word
    raise argparse.ArgumentTypeError(f"`{word}` is none of {', '.join(WHAT)}, nor a plan file")


def _many(word: str) -> int:
    if word.isdecimal():
        return int(word)
    raise argparse.ArgumentTypeError(f"`{word}` is no number of rows")


def run(args: argparse.Namespace) -> int:
    """Read a recipe, the lineage or a stage's Parquet files; print."""
    if args.what not in WHAT:
        from omrlang.cli.saved import show_saved

        return show_saved(Path(args.what), as_json=args.json)
    if args.what in ("recipe", "sharding"):
        return _recipe(args)
    if args.what == "published":
        from omrlang.cli.scores import print_published

        return print_published(args.name, args.json)
    from omr_runtime.errors import RunError

    try:
        match args.what:
            case "runs":
                print_records(_runs(args.state), args.json)
            case "stages":
                print_records(_stages(args.state), args.json)
            case "steps":
                return _steps(args)
            case "tournament":
                from omrlang.cli.scores import print_tournament

                print_tournament(args.state, args.name, args.results, args.json)
            case "paired":
                from omrlang.cli.scores import paired_records

                print_records(paired_records(args.state, args.name), args.json)
            case _:
                return _rows(args)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _recipe(args: argparse.Namespace) -> int:
    from omrlang.compiler import load_all
    from omrlang.render import render

    if args.name is None:
        print(f"error: `omr show {args.what}` needs a file", file=sys.stderr)
        return 64
    recipes, found = load_all(Path(args.name), args.set)
    if not recipes:
        print(render(found), end="", file=sys.stderr)
        return 1
    as_text = _recipe_text if args.what == "recipe" else _sharding_text
    print("\n\n".join(as_text(recipe, args) for recipe in recipes))
    return 0


def _sharding_text(recipe: Recipe, args: argparse.Namespace) -> str:
    """Of each training stage what DeepSpeed or FSDP2 is given."""
    from omr_runtime.train.sharding import configuration
    from omrlang.schema.sft import Training
    from omrlang.settle import num_devices

    parts = []
    for spec in (stage.spec for stage in recipe.stages):
        if isinstance(spec, Training):
            library, config = configuration(spec)
            count = num_devices(spec)
            fact = {"stage": spec.name, "processes": count, "library": library, "config": config}
            head = f"{spec.kind} {spec.name}: {library}, {count} process{'es' * (count > 1)}"
            text = f"{head}\n{json.dumps(config, indent=2)}" if config else head
            parts.append(json.dumps(fact) if args.json else text)
    return ("\n" if args.json else "\n\n").join(parts)


def _recipe_text(recipe: Recipe, args: argparse.Namespace) -> str:
    from omrlang.cli import recipe_text

    if args.json:
        return "\n".join(json.dumps(item, ensure_ascii=False) for item in recipe_text.facts(recipe))
    return recipe_text.resolved_text(recipe) if args.resolved else recipe_text.tree_text(recipe)


def _runs(state: Path) -> list[dict[str, Any]]:
    from omr_runtime import story

    return story.runs(state)


def _stages(state: Path) -> list[dict[str, Any]]:
    from omr_runtime import story

    return story.stages(state)


def _steps(args: argparse.Namespace) -> int:
    from omr_runtime import story

    if args.name is None:
        print("error: `omr show steps` needs the name of a training stage", file=sys.stderr)
        return 64
    print_records(story.steps(args.state, args.name, whole=args.json), args.json)
    return 0


def _rows(args: argparse.Namespace) -> int:
    from omr_runtime import story
    from omr_runtime.strict_json import json_line

    if args.name is None:
        print("error: `omr show rows` needs the name of a stage", file=sys.stderr)
        return 64
    for row in story.rows(args.state, args.name, args.n):
        if args.json:
            print(json_line(row))
        else:
            print(_block(row))
            _pictures(args.state, row)
    return 0


def _pictures(state: Path, row: dict[str, Any]) -> None:
    """The row's pictures, as well as this terminal can."""
    if not row.get("images"):
        return
    from omr_runtime.drawn import drawn, way_of

    way = way_of(os.environ, sys.stdout.isatty())
    for name in row["images"]:
        print(drawn(state, name, way))
    print()


def _block(row: dict[str, Any]) -> str:
    """One row over several lines, without its empty columns."""
    shown = [(name, value) for name, value in row.items() if value not in (None, [], "")]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{width}}  {_flat(value)}" for name, value in shown) + "\n"


def _flat(value: Any) -> str:
    return str(value).replace("\n", "\\n")


def print_records(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """A table, or one JSON object a line."""
    if as_json:
        from omr_runtime.strict_json import json_line

        for row in rows:
            print(json_line(row))
        return
    if not rows:
        print("none")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=160)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(name.replace("_", " "), justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
