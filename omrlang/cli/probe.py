"""``omr probe FILE STAGE``: a small slice of the stage is run and measured, and the next plan stands on it."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from omrlang.cli.arguments import add_set, add_state
from omrlang.cli.plan import load_plan
from omrlang.diagnostics import UsageError, did_you_mean, listed
from omrlang.plan import Estimate, Plan, PlanStage
from omrlang.schema import Eval, Rl, Sample, Sft


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("probe", help="measure a small slice of a stage")
    parser.add_argument("file", type=Path, help="the recipe")
    parser.add_argument("stage", help="the name of a sample, sft, rl or eval stage")
    add_state(parser)
    add_set(parser)
    parser.add_argument(
        "--wait", action="store_true", help="wait for another run on the same state folder"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 1 where the recipe is wrong, an input is missing or the stage fails; 64 where there is no such stage to measure."""
    from omr_runtime.errors import RunError
    from omr_runtime.executor import prepare
    from omr_runtime.lock import hold
    from omr_runtime.store import State

    state = State(args.state)
    try:
        with hold(state, args.wait) as lock:
            prepare(state, lock)
            plan = load_plan(args.file, args.state, args.set)
            if plan is None:
                return 1
            stage = _stage(plan, args.stage)
            if (missing := _missing(plan, stage, args)) is not None:
                print(f"error: {missing}", file=sys.stderr)
                return 1
            from omr_runtime.probe import keep, probe

            found = probe(plan, stage, state, lock)
            keep(stage, found, *_classes(plan, stage), state)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    speed = f"{found.tokens:,.0f} tokens in {found.seconds:.1f} s"
    print(f"{stage.address}: {speed} and {found.start_seconds:.1f} s beside them")
    after = load_plan(args.file, args.state, args.set)
    if after is not None:
        print(_moved(stage, after.stage(stage.name)))
    return 0


def _stage(plan: Plan, name: str) -> PlanStage:
    names = [stage.name for stage in plan.stages]
    if name not in names:
        hint = did_you_mean(name, names, "there are")
        raise UsageError(f"{plan.recipe} has no stage `{name}`" + (f"; {hint}" if hint else ""))
    stage = plan.stage(name)
    if not isinstance(stage.spec, Sample | Sft | Rl | Eval):
        raise UsageError(f"{stage.address} runs no model; sample, sft, rl and eval are probed")
    return stage


def _missing(plan: Plan, stage: PlanStage, args: argparse.Namespace) -> str | None:
    """What has to be there first, and the command that makes it."""
    if stage.spec.unpublished:
        return f"{stage.address}: nobody published `{stage.spec.unpublished[0]}`; give it a value"
    missing = [plan.stage(name) for name in stage.parents]
    missing = [parent for parent in missing if parent.action != "cached"]
    if not missing:
        return None
    names = listed([f"{parent.address}" for parent in missing], "and")
    selected = " ".join(f"--select +{parent.name}" for parent in missing)
    settings = "".join(f" --set {shlex.quote(setting)}" for setting in args.set)
    command = f"omr run {args.file}{settings} {selected} --state {args.state}"
    return f"{stage.address} stands on {names}, not there yet; make it first: {command}"


def _classes(plan: Plan, stage: PlanStage) -> tuple[str, str]:
    """What must be equal for the speed, and for the memory, to carry over to another stage."""
    from omrlang.estimate.history import like
    from omrlang.estimate.probed import shape
    from omrlang.estimate.shapes import root_model

    spec = stage.spec
    assert isinstance(spec, Sample | Sft | Rl | Eval), "no other stage is probed"
    root = root_model(spec.model, {other.name: other.spec for other in plan.stages})
    assert root is not None, "a checked recipe declares its models"
    return like(spec, root), shape(spec, root)


def _moved(before: PlanStage, after: PlanStage) -> str:
    """The numbers of the plan without and with the probe."""
    from omrlang.cli.figures import whole

    lines = [
        f"  {name:<8}{whole(old)} {old.origin}  ->  {whole(new)} {new.origin}"
        for (name, old), new in zip(_numbers(before), dict(_numbers(after)).values(), strict=False)
    ]
    return "\n".join(lines)


def _numbers(stage: PlanStage) -> list[tuple[str, Estimate]]:
    costs = stage.costs
    assert costs is not None, "each stage of a new plan has its costs"
    found = [("tokens", costs.tokens), ("seconds", costs.seconds)]
    memory = [("memory", costs.memory.total)] if costs.memory is not None else []
    return found + memory
