"""``omr explain CODE``: the page of a code. ``omr explain FILE STAGE.METRIC``: what a number of a plan is made of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.arguments import add_set, add_state
from omrlang.cli.figures import whole

if TYPE_CHECKING:
    from omrlang.estimate.opened import Number, Opened


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser(
        "explain", help="say what a code means, or what a number of a plan is made of"
    )
    parser.add_argument("what", metavar="CODE | FILE", help="a code, such as E203, or a recipe")
    parser.add_argument(
        "number", nargs="?", metavar="STAGE.METRIC", help="such as cold_start.seconds"
    )
    parser.add_argument(
        "--deep", action="store_true", help="open each input in turn, down to what was given"
    )
    add_state(parser)
    add_set(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 64 where there is no such code or number; 1 where the recipe is wrong."""
    return _number(args) if args.number is not None else _code(args.what)


def _code(word: str) -> int:
    from omrlang.diagnostics import CODES, nearest

    code = CODES.get(word.upper())
    if code is None:
        near = nearest(word.upper(), CODES)
        hint = f"; `{near}` is near" if near else "; codes are such as E203 or W101"
        print(f"omr: `{word}` is no code{hint}", file=sys.stderr)
        return 64
    _show((pages() / f"{code.page}.md").read_text(encoding="utf-8"))
    return 0


def _number(args: argparse.Namespace) -> int:
    from omrlang.cli.plans import load_plan
    from omrlang.diagnostics import did_you_mean
    from omrlang.estimate.opened import numbers

    plan = load_plan(Path(args.what), args.state, args.set)
    if plan is None:
        return 1
    known = numbers(plan)
    if args.number not in known:
        stage = args.number.partition(".")[0]
        own = [name for name in known if name.startswith(f"{stage}.")]
        hint = did_you_mean(args.number, own or known, "there are") or ""
        print(f"omr: the plan has no number `{args.number}`; {hint}".rstrip("; "), file=sys.stderr)
        return 64
    print("\n".join(_opened(args.number, known, args.deep)))
    return 0


def _opened(name: str, known: Mapping[str, Number], deep: bool) -> Iterator[str]:
    """The number, its formula, and each input with its value, its range, its origin and where it came from."""
    from omrlang.estimate.opened import opened

    number = known[name]
    if number.mid is None:
        yield f"{name} is unknown: {number.formula}"
    else:
        yield f"{name} = {whole(number)}, {number.origin}"
        yield f"  = {number.formula}"
    lines = list(opened(number, known, deep))
    cells = [(f"{'  ' * line.depth}{line.name}", whole(line.number)) for line in lines]
    widths = [max((len(cell[column]) for cell in cells), default=0) for column in (0, 1)]
    for line, (label, value) in zip(lines, cells, strict=True):
        yield f"{label:<{widths[0]}}  {value:<{widths[1]}}  {line.number.origin:<10}  {_source(line)}"


def _source(line: Opened) -> str:
    """The formula or the place that an input came from, and its own name where the plan has it."""
    if line.again:
        return f"see {line.known_as or line.name} above"
    own = f"   -> {line.known_as}" if line.known_as else ""
    return f"{line.number.formula}{own}"


def pages() -> Path:
    """In a wheel the pages lie inside the package, in a checkout in its documentation."""
    inside = Path(__file__).parents[1] / "_docs" / "errors"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "docs" / "errors"


def _show(text: str) -> None:
    """Laid out for a terminal; elsewhere as it is."""
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=min(100, Console().width)).print(Markdown(text))
