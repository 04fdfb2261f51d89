"""``omr ablate BASE --vary PATH=V1,V2 --seeds N``: plan, run and tabulate every variant; what is common is made once."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.arguments import add_set, add_state, add_width
from omrlang.cli.diff import refuse, view
from omrlang.diff.report import Column, Diff, Study

if TYPE_CHECKING:
    from omrlang.ablation import Arm
    from omrlang.diff import Side


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("ablate", help="run every variant of a recipe and compare them")
    parser.add_argument("base", help="a recipe, with sweeps or without")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="PATH=V1,V2",
        help="what varies, such as distil.n=1,2,4; several multiply",
    )
    parser.add_argument(
        "--seeds",
        type=_number,
        default=1,
        metavar="N",
        help="how many training seeds (sft and rl only)",
    )
    add_state(parser)
    add_set(parser)
    parser.add_argument("--plan", action="store_true", help="price the study and run nothing")
    parser.add_argument(
        "--accept-limits", action="store_true", help="run although a plan breaks a limit (exit 3)"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait for another run on the state folder"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print the study itself (`omr schema study`)"
    )
    form.add_argument("--md", action="store_true", help="print Markdown")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write one page with the curves too"
    )
    add_width(parser)
    parser.set_defaults(run=run)


def _number(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of seeds in 1 .. 100")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Plan, run in the cheapest order, tabulate; the exit code of the run that stopped it, else 0."""
    from omrlang.ablation import arms
    from omrlang.targets import Unreadable

    try:
        found = arms(args.base, args.vary, args.seeds, args.set)
    except Unreadable as error:
        return refuse(error)
    if args.plan:
        return _show(_study(found, args.state), args, [])
    from omr_runtime.errors import RunError

    try:
        with contextlib.redirect_stdout(sys.stderr):  # progress; what is printed is the study
            code, executed = _run_all(found, args)
        if code != 0:
            return code
        return _show(_measured(found, args.state, executed), args, found)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _run_all(found: Sequence[Arm], args: argparse.Namespace) -> tuple[int, int]:
    """Every arm under every seed, cheapest first; the first exit code that is not 0, and how many stages were run."""
    from omrlang.diff.price import cheapest_order

    todo = [(arm, number) for arm in found for number in range(len(arm.recipes))]
    plans = [arm.side(number, args.state).plan for arm, number in todo]
    executed = 0
    for position in cheapest_order(plans):
        arm, number = todo[position]
        code, names = _run_one(arm, number, args)
        executed += len(names)
        if code != 0:
            return code, executed
    return 0, executed


def _run_one(arm: Arm, number: int, args: argparse.Namespace) -> tuple[int, list[str]]:
    """Planned under the lock, so that what is planned is what is there."""
    from omr_runtime.executor import execute, prepare
    from omr_runtime.lock import hold
    from omr_runtime.store import State
    from omrlang.cli.plans import refusal

    state = State(args.state)
    with hold(state, args.wait) as lock:
        prepare(state, lock)
        side = arm.side(number, args.state)
        if (refused := refusal(side.plan, args)) is not None:
            return refused, []
        print(side.name, file=sys.stderr)
        return execute(side.plan, args.state, lock=lock)


# ---- what came of it ---------------------------------------------------------------------------


def _study(found: Sequence[Arm], state: Path) -> Study:
    """Compared under the first seed, priced under all."""
    from omrlang.diff import study
    from omrlang.diff.price import together

    made = study([arm.side(0, state) for arm in found])
    seeds = len(found[0].recipes)
    if seeds == 1:
        return made
    plans = [arm.side(number, state).plan for number in range(seeds) for arm in found]
    return made.model_copy(update={"seeds": seeds, "under_seeds": together(plans)})


def _measured(found: Sequence[Arm], state: Path, executed: int) -> Study:
    """The study with what every arm measured over its seeds."""
    from omrlang.cli.outcomes import scores, with_outcomes

    sides = [[arm.side(number, state) for number in range(len(arm.recipes))] for arm in found]
    plans = [[side.plan for side in arm] for arm in sides]
    made = _study(found, state)
    columns: tuple[Column, ...] = tuple(
        column.model_copy(update={"scores": scores(of_arm, state)})
        for column, of_arm in zip(made.columns, plans, strict=True)
    )
    diffs: tuple[Diff, ...] = tuple(
        with_outcomes(diff, plans[0], of_arm, state)
        for diff, of_arm in zip(made.diffs, plans[1:], strict=True)
    )
    alone = sum(len({stage.fingerprint for stage in plan.stages}) for arm in plans for plan in arm)
    update = {"columns": columns, "diffs": diffs, "executed": executed, "without_sharing": alone}
    return made.model_copy(update=update)


def _show(made: Study, args: argparse.Namespace, found: Sequence[Arm]) -> int:
    if args.html is not None:
        from omrlang.cli.diff_view.html import study_page
        from omrlang.cli.files import replace_text

        curves = _curves(found, made, args.state) if found else ""
        if not replace_text(args.html, study_page(made, curves)):
            return 1
    args_of_view = argparse.Namespace(json=args.json, md=args.md, html=False, width=args.width)
    print(view(made, args_of_view), end="")
    return 0


def _curves(found: Sequence[Arm], made: Study, state: Path) -> str:
    """Accuracy of every arm, and the figures of its trainings over their steps, as HTML."""
    from omr_runtime.report.levels import figures
    from omr_runtime.report.ran import of_plan
    from omr_runtime.store import State

    sides: list[Side] = [arm.side(0, state) for arm in found]
    marks = {
        column.name: {
            score.stage: (score.accuracy.mean, score.accuracy.lo or 0.0, score.accuracy.hi or 1.0)
            for score in column.scores
        }
        for column in made.columns
    }
    return figures(marks, {side.name: of_plan(State(state), side.plan) for side in sides})
