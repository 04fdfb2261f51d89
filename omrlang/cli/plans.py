"""A recipe on the command line to its plans: made or refused with the reason, and the exit code that options, lock and
limits give each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from omrlang.cli.exits import PRECEDENCE
from omrlang.plan import Exit, Plan

if TYPE_CHECKING:
    from omrlang.diagnostics import Diagnostic
    from omrlang.hir import Recipe
    from omrlang.select import Wanted

LIMIT, STALE = 3, 4
Made: TypeAlias = "list[tuple[Recipe, Plan]]"


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
    return plan.model_copy(update={"applyable": False, "exit": Exit(code=STALE, reason="drift")})


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


def worst(codes: Sequence[int]) -> int:
    """Of several exit codes the one that counts most."""
    return min(codes, key=PRECEDENCE.index)


def refusal(plan: Plan, args: argparse.Namespace) -> int | None:
    """The exit code with which the plan forbids a run, said aloud; None where it may run."""
    if (missing := _unpublished(plan)) is not None:
        print(f"error: the plan cannot be run: {missing}", file=sys.stderr)
        return 1
    if plan.exit.code == LIMIT and args.accept_limits:
        return None
    if plan.exit.code == STALE:
        if plan.exit.reason == "drift":
            print(f"error: the plan cannot be run: {told_drift(plan)}", file=sys.stderr)
        return STALE
    if plan.errored or not plan.applyable or plan.exit.code not in (0, 2):
        advice = "; --accept-limits runs it nevertheless" if plan.exit.code == LIMIT else ""
        print(f"error: the plan cannot be run: {plan.exit.reason}{advice}", file=sys.stderr)
        return plan.exit.code or 1
    return None


def _unpublished(plan: Plan) -> str | None:
    """The settings that somebody must decide on before a run."""
    paths = [f"{stage.name}.{path}" for stage in plan.stages for path in stage.spec.unpublished]
    if not paths:
        return None
    listed = ", ".join(f"`{path}`" for path in paths)
    return f"{listed}: nobody published this; give it a value, such as `--set {paths[0]}=…`"
