"""``omr run FILE``: make the plan, execute it, print what came of it."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.arguments import add_locked, add_selection, add_set, add_state
from omrlang.cli.plans import held_to_lock, load_plan, refusal, wanted
from omrlang.diagnostics import UsageError
from omrlang.plan import Plan

if TYPE_CHECKING:
    from omr_runtime.store import State
    from omrlang.types.models import Ray


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("run", help="run a recipe: only what is not there yet")
    parser.add_argument("file", type=Path, help="the recipe")
    add_state(parser)
    add_set(parser)
    add_selection(parser)
    add_locked(parser)
    parser.add_argument(
        "--accept-limits", action="store_true", help="run although the plan breaks a limit (exit 3)"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait for another run on the same state folder"
    )
    parser.add_argument(
        "--on",
        type=_cluster,
        metavar="ADDRESS",
        help="sample and verify on a Ray cluster: auto, HOST:6379 or ray://HOST:10001",
    )
    parser.add_argument(
        "--emit",
        choices=("slurm",),
        help="run nothing: print the shell script that submits the recipe to Slurm",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="with --emit: write it there"
    )
    parser.set_defaults(run=run)


def _cluster(text: str) -> Ray:
    from omrlang.check.clusters import is_address
    from omrlang.types.models import Ray

    if not is_address(text):
        raise argparse.ArgumentTypeError(
            f"`{text}` is no address of a cluster: auto, HOST:6379 or ray://HOST:10001"
        )
    return Ray(address=text)


def run(args: argparse.Namespace) -> int:
    """Plan under the lock, so that what is planned is what is there; then execute."""
    if args.emit is not None:
        from omrlang.cli.slurm import emit

        return emit(args)
    if args.out is not None:
        raise UsageError("--out belongs to --emit: a run keeps what it makes in its state folder")
    from omr_runtime.errors import RunError
    from omr_runtime.executor import prepare
    from omr_runtime.lock import hold
    from omr_runtime.store import State

    state = State(args.state)
    try:
        with hold(state, args.wait) as lock:
            prepare(state, lock)
            plan = _plan(args)
            if plan is None:
                return 1
            if (refused := refusal(plan, args)) is not None:
                return refused
            _save(plan, state)
            if args.on is not None:
                plan = plan.on(args.on)
            from omr_runtime.executor import execute

            code, executed = execute(plan, args.state, lock=lock)
            _print_result(plan, state, executed)
            return code
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _plan(args: argparse.Namespace) -> Plan | None:
    """The plan to run: that of the recipe, or the one that was saved."""
    from omrlang.cli.files import is_saved
    from omrlang.cli.saved import load_saved

    if not is_saved(args.file):
        plan = load_plan(args.file, args.state, args.set, wanted(args))
        return held_to_lock(plan, locked=args.locked) if plan else None
    if args.set or args.select or args.force:
        raise UsageError(
            "a saved plan is run as it is; --set, --select and --force belong to `omr plan`"
        )
    return load_saved(args.file, args.state)


def _save(plan: Plan, state: State) -> None:
    from omr_runtime.work import write_atomic

    name = re.sub(r"[^\w.-]", "_", Path(plan.recipe).name)
    write_atomic(state.plans / f"{name}.json", plan.model_dump_json().encode())


def _print_result(plan: Plan, state: State, executed: list[str]) -> None:
    from omr_runtime.result import print_result
    from omr_runtime.store import read_index

    print_result(plan, read_index(state), executed)
    done = (
        f"{len(executed)} stage{'' if len(executed) == 1 else 's'} executed"
        if executed
        else "nothing to do"
    )
    print(f"{done}; state: {state.folder}")
