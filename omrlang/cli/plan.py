"""``omr plan FILE``: what will run and why, and what it takes, before anything is spent."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from omrlang.cli.arguments import add_deny, add_locked, add_selection, add_set, add_state, add_width
from omrlang.cli.files import is_saved
from omrlang.cli.plans import (
    Made,
    held_to_lock,
    make_plans,
    wanted,
    with_denied,
    with_exit,
    worst,
)
from omrlang.plan import SAVED_SUFFIX, Plan

USAGE = 64


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("plan", help="show what a run would do and what it takes")
    parser.add_argument("file", type=Path, help="the recipe")
    parser.add_argument(
        "others", nargs="*", metavar="FILE", help="more of a study: what they share is priced once"
    )
    add_state(parser)
    add_set(parser)
    add_selection(parser)
    add_locked(parser)
    add_deny(parser)
    parser.add_argument("--json", action="store_true", help="print the plan itself")
    parser.add_argument("--summary", action="store_true", help="print two lines")
    parser.add_argument("--md", action="store_true", help="print Markdown, for a pull request")
    parser.add_argument(
        "--html", action="store_true", help="print one page with pictures that loads nothing"
    )
    add_width(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE.omrplan", help="save the plan, to be run as it is"
    )
    parser.add_argument(
        "--calibration",
        action="store_true",
        help="print how far the plans of runs on this state folder were off, instead of a plan",
    )
    parser.add_argument(
        "--official",
        action="store_true",
        help="print the commands that have lmms-eval and lm-eval score the same, instead of a plan",
    )
    parser.add_argument(
        "--detailed-exitcode", action="store_true", help="exit 2 where something would run"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the plans and print them; the exit code of ``plan_and_diff.md``."""
    if args.others:
        from omrlang.cli.diff import price_study

        return price_study([str(args.file), *args.others], args)
    if args.calibration:
        return _calibration(args.state)
    if is_saved(args.file):
        return _show_saved(args)
    made = make_plans(args.file, args.state, args.set, wanted(args), as_json=args.json)
    if args.out is not None and (wrong := _not_savable(args, made)):
        print(f"omr: {wrong}", file=sys.stderr)
        return USAGE
    plans = [(recipe, _judged(plan, args)) for recipe, plan in made]
    if args.out is not None and not _saved(args.out, plans):
        return 1
    print_plans([plan for _, plan in plans], args)
    return worst([plan.exit.code for _, plan in plans] or [1])


def _calibration(state: Path) -> int:
    """Each estimate beside what came of it; 1 where nothing was run yet."""
    from omr_runtime.errors import RunError
    from omrlang.cli.calibration import compared, text

    try:
        found = compared(state)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text(found), end="")
    return 0


def _show_saved(args: argparse.Namespace) -> int:
    """Print a saved plan as it was saved. Reads nothing else, so that it shows on any machine."""
    from omrlang.planfile import read_plan

    print(view(read_plan(args.file), args, str(args.file)), end="")
    return 0


def _not_savable(args: argparse.Namespace, made: Made) -> str | None:
    if not is_saved(args.out):
        return f"--out {args.out}: a saved plan is called FILE{SAVED_SUFFIX}"
    if len(made) > 1:
        return f"--out holds one plan, {args.file} has {len(made)} variants; such as {made[0][1].recipe}"
    return None


def _saved(path: Path, plans: Made) -> bool:
    from omrlang.cli.saved import save

    return all(save(path, plan, recipe) for recipe, plan in plans)


def _judged(plan: Plan, args: argparse.Namespace) -> Plan:
    """The plan with the exit code that the options ask for."""
    plan = held_to_lock(with_denied(plan, args.deny), locked=args.locked)
    return with_exit(plan, args.detailed_exitcode)


def print_plans(plans: Sequence[Plan], args: argparse.Namespace) -> None:
    """In the form that was asked for; several in JSON are one array."""
    saved = None if args.out is None else str(args.out)
    if args.json and len(plans) > 1:
        inside = ",\n".join(plan.model_dump_json(indent=1) for plan in plans)
        print(f"[\n{inside}\n]")
    else:
        print("".join(view(plan, args, saved) for plan in plans), end="")


def view(plan: Plan, args: argparse.Namespace, saved: str | None) -> str:
    """The plan as JSON, two lines, Markdown, a page, commands or a text; ``saved`` is the plan file that holds it."""
    if args.official:
        from omrlang.cli.plan_view.official import official

        return official(plan, args.state)
    if args.json:
        return plan.model_dump_json(indent=1) + "\n"
    if args.md:
        from omrlang.cli.plan_view.markdown import markdown

        return markdown(plan, saved)
    if args.html:
        from omrlang.cli.plan_view.html import page

        return page(plan, saved)
    from omrlang.cli.plan_text import plan_text, summary

    if args.summary:
        return summary(plan, saved)
    return plan_text(plan, args.width or shutil.get_terminal_size((100, 24)).columns, saved)
