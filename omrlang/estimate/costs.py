"""The lowered stages and the index become what each stage takes: rows, tokens, time, memory and money, in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from omrlang.estimate.cascade import cascade
from omrlang.estimate.compute import gpu_hours
from omrlang.estimate.history import past, speeds
from omrlang.estimate.judges import judge_costs
from omrlang.estimate.learning import of_training
from omrlang.estimate.passing import Pass
from omrlang.estimate.programs import of_program
from omrlang.estimate.ranges import added
from omrlang.estimate.rows import keep_rate, satisfied
from omrlang.estimate.stage_costs import rent
from omrlang.estimate.unpublished import open_setting, without_numbers, without_rows
from omrlang.estimate.writing import of_writing
from omrlang.lower import Lowered
from omrlang.plan import Asked, Costs
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source
from omrlang.settle import DEFAULT_SCORE
from omrlang.state import Index
from omrlang.types import Enough, Hardware, RowExpr


def estimate(stages: tuple[Lowered, ...], index: Index, recipe: Path) -> dict[str, Costs]:
    """Costs by stage, each of the whole stage as if nothing were cached."""
    walk = Pass({stage.name: stage.spec for stage in stages}, index, recipe, speeds(index))
    return {stage.name: _stage(stage, walk) for stage in stages}


def _stage(stage: Lowered, walk: Pass) -> Costs:
    costs = _known(stage, walk)
    costs = _with_judges(
        stage, costs.model_copy(update={"asked": _asking(stage, costs, walk)}), walk
    )
    path = open_setting(stage.spec)
    if path is None:
        return costs
    walk.flows[stage.name] = without_rows(walk.flows[stage.name], path)
    return without_numbers(costs, path)


def _with_judges(stage: Lowered, costs: Costs, walk: Pass) -> Costs:
    """Judges' calls, tokens and dollars beside the stage's own; their time in it, where it is known and none was measured."""
    found = judge_costs(stage.decided, costs.asked, walk.flows[stage.name], walk.specs)
    if not found:
        return costs
    update: dict[str, object] = {"extra": {**costs.extra, **found}}
    if found["judge_seconds"].mid is not None and costs.seconds.origin != "measured":
        hardware: Hardware | None = getattr(stage.spec, "hardware", None)
        parts = {"stage": costs.seconds, "judges": found["judge_seconds"]}
        seconds = added("s", "stage + judges", parts)
        hours = gpu_hours(seconds, hardware)
        update |= {"seconds": seconds, "gpu_hours": hours, "usd": rent(hours, hardware)}
    return costs.model_copy(update=update)


def _asking(stage: Lowered, costs: Costs, walk: Pass) -> tuple[Asked, ...]:
    """How often what verifies rows, answers or rollouts is asked."""
    match stage.decided:
        case Filter() as spec:
            keep = keep_rate(spec, walk.flows[spec.rows], past(stage, walk.index, walk.recipe))
            return cascade(spec.keep, costs.rows_in, keep)
        case Sample(until=Enough(of=expr)) as spec:
            return cascade(expr, costs.rows_out, satisfied(spec))
        case Rl() as spec:
            asked = cascade(spec.reward, costs.extra["rollouts"], None)
            return asked + _watched(spec, costs)
        case Eval(score=RowExpr() as expr):
            return cascade(expr, costs.rows_out, None)
        case Eval():
            return cascade(DEFAULT_SCORE, costs.rows_out, None)
        case _:
            return ()


def _watched(spec: Rl, costs: Costs) -> tuple[Asked, ...]:
    if spec.watch is None:
        return ()
    found = cascade(spec.watch.score or DEFAULT_SCORE, costs.extra["watch_answers"], None)
    return tuple(item.model_copy(update={"what": f"watch: {item.what}"}) for item in found)


def _known(stage: Lowered, walk: Pass) -> Costs:
    before = past(stage, walk.index, walk.recipe)
    spec = stage.spec
    match spec:
        case Source() | Mix() | Filter():
            return of_program(stage, spec, before, walk)
        case Sample() | Eval():
            return of_writing(spec, before, walk)
        case Sft() | Rl():
            return of_training(spec, before, walk)
        case _:
            assert_never(spec)
