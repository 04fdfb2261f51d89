"""``omr why-rerun FILE STAGE``: what moved since the last run, back to where it began, with old and new values."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from omrlang.cli.arguments import add_set, add_state
from omrlang.cli.plans import load_plan
from omrlang.plan import SYMBOL, Change, Plan, PlanStage


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("why-rerun", help="tell why a stage runs again")
    parser.add_argument("file", type=Path, help="the recipe")
    parser.add_argument("stage", help="the stage's name")
    add_state(parser)
    add_set(parser)
    parser.add_argument("--json", action="store_true", help="print the chain as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 1 where the recipe is wrong; 64 where it has no such stage."""
    plan = load_plan(args.file, args.state, args.set)
    if plan is None:
        return 1
    names = [stage.name for stage in plan.stages]
    if args.stage not in names:
        from omrlang.diagnostics import did_you_mean

        hint = did_you_mean(args.stage, names, "there are")
        more = f"; {hint}" if hint else ""
        print(f"omr: {args.file} has no stage `{args.stage}`{more}", file=sys.stderr)
        return 64
    chain = list(causes(plan, plan.stage(args.stage)))
    print(json.dumps([_facts(stage) for stage in chain], indent=1) if args.json else _told(chain))
    return 0


def causes(plan: Plan, stage: PlanStage) -> Iterator[PlanStage]:
    """The stage, then each stage above it that runs again and makes it run again, the nearest first."""
    waiting, seen = [stage], set()
    while waiting:
        current = waiting.pop(0)
        if current.name not in seen:
            seen.add(current.name)
            yield current
        if "parent_changed" in current.reasons:
            above = (plan.stage(name) for name in current.parents)
            waiting += [parent for parent in above if parent.action != "cached"]


def _facts(stage: PlanStage) -> dict[str, object]:
    return stage.model_dump(
        mode="json", include={"address", "action", "reasons", "reason_text", "changes"}
    )


def _told(chain: list[PlanStage]) -> str:
    first = chain[0]
    if first.action == "cached":
        return f"{first.address} does not run again: {first.reason_text}"
    return "\n".join(line for stage in chain for line in _stage(stage))


def _stage(stage: PlanStage) -> Iterator[str]:
    reasons = ", ".join(stage.reasons)
    yield f"{SYMBOL[stage.action]:>3} {stage.address}: {stage.reason_text}  [{reasons}]"
    for change in stage.changes:
        if change.reason != "parent_changed":
            yield from _change(change)


def _change(change: Change) -> Iterator[str]:
    yield f"      {change.path}  ({change.cls})"
    yield f"        last run  {change.old}"
    place = f"   {change.at.file}:{change.at.line}:{change.at.column}" if change.at else ""
    layer = f"   set by {change.layer}" if change.layer not in (None, "file", "default") else ""
    told = "   the default" if change.layer == "default" else f"{place}{layer}"
    yield f"        now       {change.new}{told}"
