"""The stages of a plan become boxes in columns and curves between them: where each stands, not yet how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from omrlang.plan import Plan, PlanStage

FOLD = 4
"""So many sources that all go to the same stages are drawn as one box."""


BEND = 0.4
"""Of a row's height, what a line takes that passes a column."""


@dataclass(slots=True)
class Box:
    """One stage, several sources with the same readers, or without stages a bend: where a line that leads on passes a
    column, so that it crosses no box. ``column`` counts from the left, ``row`` is its top, in rows from the top."""

    stages: tuple[PlanStage, ...]
    parents: set[int] = field(default_factory=set)
    column: int = 0
    row: float = 0.0

    @property
    def height(self) -> float:
        return 1.0 if self.stages else BEND

    @property
    def middle(self) -> float:
        return self.row + self.height / 2


@dataclass(frozen=True, slots=True)
class Graph:
    """``boxes`` and, after them, bends; ``edges`` lead from one column to the next."""

    boxes: tuple[Box, ...]

    @property
    def edges(self) -> Iterator[tuple[Box, Box]]:
        for box in self.boxes:
            for parent in sorted(box.parents):
                yield self.boxes[parent], box

    @property
    def num_columns(self) -> int:
        return max((box.column for box in self.boxes), default=0) + 1

    @property
    def num_rows(self) -> float:
        return max((box.row + box.height for box in self.boxes), default=1.0)


def graph(plan: Plan) -> Graph:
    """Each box right of all its parents, sources beside what reads them, and rows in an order that crosses little."""
    groups = _groups(plan)
    at = {stage.name: number for number, group in enumerate(groups) for stage in group}
    boxes = tuple(
        Box(group, {at[name] for stage in group for name in stage.parents}) for group in groups
    )
    _set_columns(boxes)
    bent = _with_bends(boxes)
    _set_rows(bent)
    return Graph(bent)


def _groups(plan: Plan) -> list[tuple[PlanStage, ...]]:
    """Every stage alone, but for sources that many share their readers with."""
    readers: dict[str, tuple[str, ...]] = {
        stage.name: tuple(other.name for other in plan.stages if stage.name in other.parents)
        for stage in plan.stages
    }
    alike: dict[tuple[str, ...], list[PlanStage]] = {}
    for stage in plan.stages:
        if stage.spec.kind == "source":
            alike.setdefault((stage.action, *readers[stage.name]), []).append(stage)
    folded = {
        stage.name: group for group in alike.values() if len(group) >= FOLD for stage in group
    }
    found: dict[str, tuple[PlanStage, ...]] = {}
    for stage in plan.stages:
        group = folded.get(stage.name, [stage])
        found.setdefault(group[0].name, tuple(group))
    return list(found.values())


def _set_columns(boxes: Sequence[Box]) -> None:
    """As far left as the parents let it; a source as far right as its first reader lets it."""
    for box in boxes:
        box.column = 1 + max((boxes[parent].column for parent in box.parents), default=-1)
    for number, box in enumerate(boxes):
        if not box.parents:
            columns = [other.column for other in boxes if number in other.parents]
            box.column = min(columns, default=1) - 1


def _with_bends(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """A bend in each column between a box and those that it leads to further on; lines from one box share theirs."""
    found = list(boxes)
    bends: dict[tuple[int, int], int] = {}
    for box in boxes:
        box.parents = {_last_bend(parent, box.column, found, bends) for parent in box.parents}
    return tuple(found)


def _last_bend(
    parent: int, column: int, found: list[Box], bends: dict[tuple[int, int], int]
) -> int:
    """What stands just before that column on the way from the parent: the last of its bends, or itself."""
    last = parent
    for passed in range(found[parent].column + 1, column):
        at = bends.get((parent, passed))
        if at is None:
            at = bends[parent, passed] = len(found)
            found.append(Box((), {last}, passed))
        last = at
    return last


def _set_rows(boxes: Sequence[Box]) -> None:
    """Order within each column by the mean place of the neighbours, from the left and back, a few times."""
    columns: dict[int, list[Box]] = {}
    for box in boxes:
        columns.setdefault(box.column, []).append(box)
    near = _neighbours(boxes)
    for found in columns.values():
        _number(found)
    for turn in range(6):
        for column in sorted(columns, reverse=turn % 2 == 1):
            found = columns[column]
            means = {id(box): _mean(near[id(box)], box) for box in found}
            found.sort(key=lambda box: means[id(box)])
            _number(found)
    heights = {column: found[-1].row + found[-1].height for column, found in columns.items()}
    tallest = max(heights.values(), default=1.0)
    for box in boxes:
        box.row += (tallest - heights[box.column]) / 2


def _neighbours(boxes: Sequence[Box]) -> Mapping[int, list[Box]]:
    found: dict[int, list[Box]] = {id(box): [] for box in boxes}
    for box in boxes:
        for parent in box.parents:
            found[id(box)].append(boxes[parent])
            found[id(boxes[parent])].append(box)
    return found


def _mean(near: Sequence[Box], box: Box) -> float:
    return sum(other.middle for other in near) / len(near) if near else box.middle


def _number(column: Sequence[Box]) -> None:
    top = 0.0
    for box in column:
        box.row = top
        top += box.height
