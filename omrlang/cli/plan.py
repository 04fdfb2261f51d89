"""``omr plan FILE``: what will run and why, and what it takes, before anything is spent."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from omrlang.plan import Plan

DEFAULT_STATE = ".omr"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("plan", help="show what a run would do and what it takes")
    parser.add_argument("file", type=Path, help="the recipe")
    parser.add_argument("--state", type=Path, default=Path(DEFAULT_STATE), metavar="DIR", help="folder of earlier runs (default .omr)")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="set a value: data=…, sample_name.n=2")
    parser.add_argument("--json", action="store_true", help="print the plan itself")
    parser.add_argument("--summary", action="store_true", help="print two lines")
    parser.add_argument("--width", type=int, default=0, metavar="N", help="columns of the text view (default: the terminal's)")
    parser.add_argument("--detailed-exitcode", action="store_true", help="exit 2 where something would run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the plan and print it; the exit code of ``plan_and_diff.md``."""
    plan = load_plan(args.file, args.state, args.set)
    if plan is None:
        return 1
    plan = with_exit(plan, args.detailed_exitcode)
    print_plan(plan, args)
    return plan.exit.code


def load_plan(file: Path, state: Path, overrides: list[str]) -> Plan | None:
    """The plan of a recipe, or None after its errors were printed. Warnings go to standard error in any case."""
    from omrlang.compiler import load, make_plan
    from omrlang.render import render

    recipe, diagnostics = load(file, overrides)
    if diagnostics:
        print(render(diagnostics), end="", file=sys.stderr)
    if recipe is None:
        print("Planning failed.", file=sys.stderr)
        return None
    return make_plan(recipe, state, file)


def with_exit(plan: Plan, detailed: bool) -> Plan:
    """Code 2 says that something would run; asked for, and weaker than any other."""
    due = any(stage.action != "cached" for stage in plan.stages)
    if not detailed or plan.exit.code != 0 or not due:
        return plan
    return plan.model_copy(update={"exit": plan.exit.model_copy(update={"code": 2, "reason": "changes"})})


def print_plan(plan: Plan, args: argparse.Namespace) -> None:
    """In the form that was asked for."""
    from omrlang.cli.plan_text import plan_text, summary

    if args.json:
        print(plan.model_dump_json(indent=1))
    elif args.summary:
        print(summary(plan), end="")
    else:
        print(plan_text(plan, args.width or shutil.get_terminal_size((100, 24)).columns), end="")
