"""``omr explain CODE``: the page of a code. ``omr explain FILE STAGE.METRIC``: what a number of a plan is made of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from omrlang.cli.arguments import add_set, add_state
from omrlang.cli.figures import spread_of, text
from omrlang.plan import Estimate, Money


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser(
        "explain", help="say what a code means, or what a number of a plan is made of"
    )
    parser.add_argument("what", metavar="CODE | FILE", help="a code, such as E203, or a recipe")
    parser.add_argument(
        "number", nargs="?", metavar="STAGE.METRIC", help="such as cold_start.seconds"
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
    from omrlang.cli.plan import load_plan
    from omrlang.diagnostics import did_you_mean
    from omrlang.estimate.opened import metrics

    plan = load_plan(Path(args.what), args.state, args.set)
    if plan is None:
        return 1
    known = {f"{s.name}.{name}": item for s in plan.stages for name, item in metrics(s).items()}
    if args.number not in known:
        stage = args.number.rpartition(".")[0]
        own = [name for name in known if name.startswith(f"{stage}.")]
        hint = did_you_mean(args.number, own or known, "there are") or ""
        print(f"omr: the plan has no number `{args.number}`; {hint}".rstrip("; "), file=sys.stderr)
        return 64
    print("\n".join(_opened(args.number, known[args.number])))
    return 0


def _opened(name: str, item: Estimate | Money) -> Iterator[str]:
    """The number, its formula, and each input with where it came from."""
    yield f"{name} = {text(item)}"
    if item.mid is None:
        yield f"  unknown: {item.formula}"
        return
    yield f"  range    {spread_of(item)}"
    yield f"  origin   {item.origin}"
    if item.formula:
        yield f"  formula  {item.formula}"
    width = max((len(entry[0]) for entry in item.inputs), default=0)
    for entry, value, origin in item.inputs:
        yield f"    {entry:<{width}}  {value}  ({origin})"


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
