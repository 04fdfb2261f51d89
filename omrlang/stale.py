"""A saved plan and one made now become what moved between them; nothing where the saved one still holds."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.changes import compare
from omrlang.fingerprint import deciding_classes
from omrlang.leaves import Leaf, leaves
from omrlang.plan import Plan, PlanStage


def moved_since(saved: Plan, now: Plan) -> tuple[str, ...]:
    """What moved, a line each: what lies outside the recipe, then its stages, then what was lost."""
    return (*_inputs(saved, now), *_stages(saved, now)) or tuple(_lost(saved, now))


def _inputs(saved: Plan, now: Plan) -> Iterator[str]:
    before = {(pin.kind, pin.what): pin for pin in saved.pins}
    for pin in now.pins:
        was = before.get((pin.kind, pin.what))
        if was is not None and was.revision != pin.revision:
            old, new = ((side or "unknown")[:12] for side in (was.revision, pin.revision))
            yield f"{pin.what} changed: {old} -> {new}"


def _stages(saved: Plan, now: Plan) -> Iterator[str]:
    before = {stage.name: stage for stage in saved.stages}
    after = {stage.name: stage for stage in now.stages}
    yield from (f"{before[name].address} is gone" for name in before if name not in after)
    for name, stage in after.items():
        if name not in before:
            yield f"{stage.address} is new"
        elif before[name].fingerprint != stage.fingerprint:
            yield from _settings(before[name], stage, saved, now)


def _settings(was: PlanStage, stage: PlanStage, saved: Plan, now: Plan) -> Iterator[str]:
    """What a person changed in the stage; a stage that only follows its parents is told by them."""
    if was.spec.kind != stage.spec.kind:
        yield f"{was.address} is a {stage.spec.kind} now"
        return
    before, after = (_leaves(plan, item) for plan, item in ((saved, was), (now, stage)))
    for moved in compare(before, after, deciding_classes(stage.spec)):
        if moved.reason != "parent_changed" and moved.path != "revision":
            change = moved.change()
            yield f"{stage.address}: {change.path} {change.old} -> {change.new}"


def _leaves(plan: Plan, stage: PlanStage) -> tuple[Leaf, ...]:
    marks = {other.name: other.fingerprint for other in plan.stages}
    return leaves(stage.spec, marks, stage.revision)


def _lost(saved: Plan, now: Plan) -> Iterator[str]:
    """Equal recipes over a state folder from which something was taken away that the saved plan counts on."""
    for stage in saved.stages:
        today = now.stage(stage.name)
        if today.is_due and not stage.is_due:
            yield f"{stage.address} was there and is not any more: {today.reason_text}"


def without_done(saved: Plan, now: Plan) -> Plan:
    """The saved plan, less what was finished since: by an earlier try of this plan, or by another recipe."""
    done = {stage.name for stage in now.stages if stage.action == "cached"}
    stages = (
        stage.model_copy(update={"action": "cached", "reasons": (), "reason_text": "done"})
        if stage.name in done
        else stage
        for stage in saved.stages
    )
    return saved.model_copy(update={"stages": tuple(stages)})
