"""What a pass over the stages knows when it comes to one: rows and responses of all before it, and speeds that were measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from omrlang.estimate.history import Speed, like_stage, speed_of
from omrlang.estimate.rows import Flow, together
from omrlang.plan import Estimate
from omrlang.schema import Spec
from omrlang.state import Index, Probe
from omrlang.types import Model


@dataclass(slots=True)
class Pass:
    """What the pass knows when it comes to a stage: rows and responses of all stages before it."""

    specs: dict[str, Spec]
    index: Index
    recipe: Path
    speeds: dict[str, Speed]
    flows: dict[str, Flow] = field(default_factory=dict)
    responses: dict[str, Estimate | None] = field(default_factory=dict)


def rows_together(names: tuple[str, ...], walk: Pass) -> Flow:
    """Several row sets that are asked as one."""
    flows = {name: walk.flows[name] for name in names}
    return replace(
        together(flows, {name: flow.rows for name, flow in flows.items()}), response=None
    )


def like_seconds(
    spec: Spec, root: Model | None, walk: Pass, tokens: Estimate, own: Probe | None
) -> dict[str, Estimate] | None:
    """Time by the speed of the stage's own probe, else by a like stage's."""
    speed = speed_of(own) if own else like_stage(spec, root, walk.speeds)
    return None if speed is None else {"like": speed.scaled(tokens)}
