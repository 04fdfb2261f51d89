"""The memory of each training stage becomes its peak, its parts, its verdict and the settings that would flip it."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.cli.figures import LETTER, gib
from omrlang.cli.plan_view.layout import listing, wrapped
from omrlang.cli.plan_view.stages import named
from omrlang.plan import Estimate, Memory, Plan, PlanStage
from omrlang.schema import Rl
from omrlang.settle import num_devices


def memory_lines(plan: Plan, width: int) -> Iterator[str]:
    """A block for each training stage; nothing where nothing is trained."""
    found = [
        (stage, stage.costs.memory)
        for stage in plan.stages
        if stage.costs is not None and stage.costs.memory is not None
    ]
    if not found:
        return
    yield "Memory at the peak of a process, GiB"
    for stage, memory in found:
        limit = "" if memory.capacity_bytes is None else f" of {gib(memory.capacity_bytes)}"
        peak = "?" if memory.total.mid is None else _peak(memory)
        yield from wrapped(
            f"{peak}{limit}  {said(memory)}",
            width,
            f"  {named(stage)}  ",
        )
        if memory.parts:
            yield from wrapped(
                listing(f"{name} {_gib(part)}" for name, part in memory.parts.items()),
                width,
                "      ",
            )
        apart = apart_text(stage)
        if apart is not None:
            yield from wrapped(apart, width, "      ")
        for flip in memory.flips:
            yield from wrapped(
                flip, width, "      with " if memory.verdict != "fits" else "      not with "
            )


def apart_text(stage: PlanStage) -> str | None:
    """Who has which GPUs, where rollouts are drawn on others than those that train."""
    spec, extra = stage.spec, stage.costs.extra if stage.costs is not None else {}
    if not isinstance(spec, Rl) or spec.hardware is None or "engine_apart" not in extra:
        return None
    num, train, needs = spec.hardware.count, num_devices(spec), extra["engine_apart"]
    takes = "?" if needs.mid is None else f"{gib(needs.mid)} ({gib(needs.lo or 0)} – {gib(needs.hi or 0)}) {LETTER[needs.origin]}"  # fmt: skip
    share = gib(extra["engine_share"].mid or 0)
    return f"{train} of {num} GPUs train, {num - train} draw: an engine apart takes at least {takes} of its {share} on each"


def said(memory: Memory) -> str:
    """The verdict, loud where it needs a person."""
    loud = memory.verdict in ("uncertain", "does not fit")
    return memory.verdict.upper() if loud else memory.verdict


def _peak(memory: Memory) -> str:
    total = memory.total
    assert total.lo is not None, "a known peak has a range"
    assert total.mid is not None, "a known peak has a range"
    assert total.hi is not None, "a known peak has a range"
    return f"{gib(total.mid)} ({gib(total.lo)} – {gib(total.hi)}) {LETTER[total.origin]}"


def _gib(item: Estimate) -> str:
    return "?" if item.mid is None else gib(item.mid)
