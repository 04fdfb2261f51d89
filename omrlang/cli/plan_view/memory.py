"""The memory of each training stage becomes its peak, its parts, its verdict and the settings that would flip it."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.cli.figures import LETTER, gib
from omrlang.cli.plan_view.layout import listing, wrapped
from omrlang.cli.plan_view.stages import named
from omrlang.plan import Estimate, Memory, Plan


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
        for flip in memory.flips:
            yield from wrapped(
                flip, width, "      with " if memory.verdict != "fits" else "      not with "
            )


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
