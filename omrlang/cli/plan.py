"""``omr plan FILE``: what will run and why, and what it takes, before anything is spent."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from omrlang.cli.arguments import add_deny, add_locked, add_selection, add_set, add_state, add_width
from omrlang.cli.exits import PRECEDENCE
from omrlang.cli.files import is_saved
from omrlang.plan import SAVED_SUFFIX, Exit, Plan

if TYPE_CHECKING:
    from omrlang.diagnostics import Diagnostic
    from omrlang.hir import Recipe
    from omrlang.select import Wanted

USAGE = 64
DRIFT = 4
Made: TypeAlias = "list[tuple[Recipe, Plan]]"


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


def worst(codes: Sequence[int]) -> int:
    """Of several exit codes the one that counts most."""
    return min(codes, key=PRECEDENCE.index)


def wanted(args: argparse.Namespace) -> Wanted:
    """What ``--select`` and ``--force`` say."""
    from omrlang.select import Wanted

    return Wanted(tuple(args.select), tuple(args.force))


def load_plan(
    target: Path, state: Path, overrides: list[str], wanted: Wanted | None = None
) -> Plan | None:
    """The plan of one recipe or variant, or None after its errors were printed. The plan carries the warnings.

    Raises ``Unselectable`` where ``wanted`` means no stage."""
    from omrlang.compiler import load
    from omrlang.planning import make_plan
    from omrlang.select import Wanted

    recipe, diagnostics = load(target, overrides)
    if recipe is None:
        _print_errors(target, diagnostics, as_json=False)
        return None
    return make_plan(recipe, state, target, diagnostics, overrides, wanted=wanted or Wanted())


def load_plans(
    target: Path,
    state: Path,
    overrides: list[str],
    wanted: Wanted | None = None,
    as_json: bool = False,
) -> list[Plan]:
    """A plan for each variant of a file; none after its errors were printed. Raises ``Unselectable``."""
    return [plan for _, plan in make_plans(target, state, overrides, wanted, as_json)]


def make_plans(
    target: Path, state: Path, overrides: list[str], wanted: Wanted | None, as_json: bool
) -> Made:
    """As ``load_plans``, each with its recipe."""
    from omrlang.compiler import load_all, variant_path
    from omrlang.planning import make_plan
    from omrlang.select import Wanted

    recipes, found = load_all(target, overrides)
    if not recipes:
        _print_errors(target, found, as_json)
    wanted = wanted or Wanted()
    paths = [variant_path(target, recipe) for recipe in recipes]
    return [
        (recipe, make_plan(recipe, state, path, found, overrides, wanted=wanted))
        for recipe, path in zip(recipes, paths, strict=True)
    ]


def _print_errors(file: Path, diagnostics: Sequence[Diagnostic], as_json: bool) -> None:
    from omrlang.render import render

    errors = sum(item.severity == "error" for item in diagnostics)
    print(render(diagnostics), end="", file=sys.stderr)
    print(f"Planning failed: {errors} error{'' if errors == 1 else 's'}.", file=sys.stderr)
    if as_json:
        print_failure(file, diagnostics)


def print_failure(file: Path, diagnostics: Sequence[Diagnostic]) -> None:
    """What a plan that could not be made is in JSON: the same outer fields, and the errors."""
    from omrlang.plan import PlanFailure
    from omrlang.planning import plan_diagnostic

    found = tuple(plan_diagnostic(item) for item in diagnostics)
    print(PlanFailure(recipe=str(file), diagnostics=found).model_dump_json(indent=1))


def with_denied(plan: Plan, denied: Sequence[str]) -> Plan:
    """Warnings that are denied are errors, and such a plan is not applied."""
    found = tuple(
        item.model_copy(update={"severity": "error"}) if item.code in denied else item
        for item in plan.diagnostics
    )
    if found == plan.diagnostics:
        return plan
    stop = {"errored": True, "applyable": False, "exit": Exit(code=1, reason="denied")}
    return plan.model_copy(update={"diagnostics": found, **stop})


def held_to_lock(plan: Plan, *, locked: bool) -> Plan:
    """With ``--locked`` an input that is not what the lock says, or that it does not know, ends in 4."""
    if not locked or not told_drift(plan) or plan.exit.code == 1:
        return plan
    return plan.model_copy(update={"applyable": False, "exit": Exit(code=DRIFT, reason="drift")})


def told_drift(plan: Plan) -> str:
    """The inputs that are not as locked; empty where all are."""
    moved = [p.what for p in plan.pins if any(drift.since == "lock" for drift in p.drift)]
    unknown = [pin.what for pin in plan.pins if not pin.locked]
    parts = [f"{', '.join(moved)}: not what the lock says"] if moved else []
    parts += [f"{', '.join(unknown)}: not in the lock"] if unknown else []
    return "; ".join([*parts, "`omr lock` updates it"]) if parts else ""


def with_exit(plan: Plan, detailed: bool) -> Plan:
    """Code 2 says that something would run; wanted for, and weaker than any other."""
    if not detailed or plan.exit.code != 0 or not plan.due:
        return plan
    return plan.model_copy(
        update={"exit": plan.exit.model_copy(update={"code": 2, "reason": "changes"})}
    )


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
