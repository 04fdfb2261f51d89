"""``omr probe FILE STAGE``: a small slice of the stage is run and measured, or what others measured is taken down, and the next
plan stands on it."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.arguments import add_set, add_state
from omrlang.cli.plans import load_plan
from omrlang.diagnostics import UsageError, did_you_mean, listed
from omrlang.plan import Estimate, Plan, PlanStage
from omrlang.schema import Eval, Rl, Sample, Sft
from omrlang.types import Hardware

if TYPE_CHECKING:
    from omr_runtime.lock import Lock
    from omr_runtime.store import State


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
    told = parser.add_argument_group("instead of running anything, of a published measurement")
    told.add_argument("--source", help="who measured it, and where that stands")
    told.add_argument(
        "--tokens-per-s", type=float, metavar="N", help="of the stage, on one of its devices"
    )
    told.add_argument("--peak-gib", type=float, metavar="N", help="memory of one of its devices")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 1 where the recipe is wrong, an input is missing or the stage fails; 64 where there is no such stage to measure."""
    _check_published(args)
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
            if args.source is not None:
                told = _store_published(plan, stage, state, args)
            elif (missing := _missing(plan, stage, args)) is not None:
                print(f"error: {missing}", file=sys.stderr)
                return 1
            else:
                told = _probed(plan, stage, state, lock)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{stage.address}: {told}")
    after = load_plan(args.file, args.state, args.set)
    if after is not None:
        print(_moved(stage, after.stage(stage.name)))
    return 0


def _probed(plan: Plan, stage: PlanStage, state: State, lock: Lock) -> str:
    """Run a slice and keep what it measured."""
    from omr_runtime.probe import keep, probe

    found = probe(plan, stage, state, lock)
    keep(stage, found, *_classes(plan, stage), state)
    speed = f"{found.tokens:,.0f} tokens in {found.seconds:.1f} s"
    return f"{speed} and {found.start_seconds:.1f} s beside them"


def _check_published(args: argparse.Namespace) -> None:
    """A figure without its source is worth nothing, and a source without a figure says nothing."""
    figures = [args.tokens_per_s, args.peak_gib]
    if (args.source is None) != (figures == [None, None]):
        raise UsageError("--source goes with --tokens-per-s, --peak-gib or both")
    if any(figure is not None and not 0 < figure < math.inf for figure in figures):
        raise UsageError("--tokens-per-s and --peak-gib are above 0")


def _store_published(plan: Plan, stage: PlanStage, state: State, args: argparse.Namespace) -> str:
    """Take down what others measured of a stage of this shape."""
    from omr_runtime.calibration import store
    from omrlang.state import Published

    like, shape = _classes(plan, stage)
    hardware: Hardware | None = getattr(stage.spec, "hardware", None)
    devices = hardware.count if hardware is not None else 1
    row = Published(
        name=stage.name,
        like=like,
        shape=shape,
        source=args.source,
        tokens_per_s=None if args.tokens_per_s is None else args.tokens_per_s * devices,
        peak_bytes=None if args.peak_gib is None else args.peak_gib * 2**30,
    )
    store(stage, row.model_dump(), state)
    return f"published by {args.source}"


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
