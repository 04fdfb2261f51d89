"""A recipe's stages to a picture: each stage a box right of what it is made of, with what came in and went out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from omr_runtime.report.chart import picture, put, svg

BOX_W, BOX_H, GAP_X, GAP_Y = 138, 46, 34, 14
MOST_LETTERS = 20


@dataclass(frozen=True, slots=True)
class Box:
    """``facts`` is the second line; ``parents`` are names of other boxes, which stand before it."""

    name: str
    kind: str
    facts: str
    parents: tuple[str, ...]


Point = tuple[float, float]
Bend = tuple[str, int]
"""Where a line that leads on from a box passes a column: a slot of its own, so that it crosses no box."""
Slot = str | Bend
BEND_H = 6


def graph(boxes: Sequence[Box]) -> str:
    """The picture; boxes in an order in which parents come first."""
    columns = layers(boxes)
    places = _places(boxes, columns)
    width = len(columns) * (BOX_W + GAP_X) - GAP_X + 2
    height = max((y for _, y in places.values()), default=0) + BOX_H + 2
    root = picture("the recipe's stages and what each is made of", width, height)
    root.set("style", f"min-width:{width * 0.8:.0f}px;max-width:{width * 1.15:.0f}px")
    depth = {name: number for number, column in enumerate(columns) for name in column}
    for box in boxes:
        for parent in box.parents:
            between = [(parent, column) for column in range(depth[parent] + 1, depth[box.name])]
            _edge(root, places[parent], [places[bend] for bend in between], places[box.name])
    for box in boxes:
        _box(root, box, places[box.name])
    return svg(root)


def layers(boxes: Sequence[Box]) -> list[list[str]]:
    """Columns from left to right: a box stands after its parents, a source right before its first reader.

    >>> layers([Box("a", "source", "", ()), Box("b", "source", "", ()), Box("m", "mix", "", ("a",)), Box("e", "eval", "", ("b", "m"))])
    [['a'], ['m', 'b'], ['e']]
    """
    depth: dict[str, int] = {}
    for box in boxes:
        depth[box.name] = 1 + max((depth[parent] for parent in box.parents), default=-1)
    for box in boxes:
        readers = [depth[other.name] for other in boxes if box.name in other.parents]
        if not box.parents and readers:
            depth[box.name] = min(readers) - 1
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for box in sorted(boxes, key=lambda box: not box.parents):
        columns[depth[box.name]].append(box.name)
    return columns


def _places(boxes: Sequence[Box], columns: list[list[str]]) -> dict[Slot, Point]:
    """The upper left corner of each box and bend: in a column they stand in the order of what leads to them."""
    before = _leading_to(boxes, columns)
    slots = [_slots(column, number, before) for number, column in enumerate(columns)]
    tallest = max((_height(column) for column in slots), default=0.0)
    places: dict[Slot, Point] = {}
    for number, column in enumerate(slots):

        def height_before(slot: Slot) -> float:
            above = [places[other][1] for other in before[slot] if other in places]
            return sum(above) / len(above) if above else float("inf")

        y = 1 + (tallest - _height(column)) / 2
        for slot in sorted(column, key=height_before):
            places[slot] = 1 + number * (BOX_W + GAP_X), y
            y += _tall(slot) + GAP_Y
    return places


def _slots(column: Sequence[str], number: int, before: dict[Slot, list[Slot]]) -> list[Slot]:
    """The boxes of a column, and the bends of the lines that pass it."""
    return [*column, *(bend for bend in before if not isinstance(bend, str) and bend[1] == number)]


def _leading_to(boxes: Sequence[Box], columns: list[list[str]]) -> dict[Slot, list[Slot]]:
    """By box and bend: the boxes and bends of the column before that lead to it."""
    depth = {name: number for number, column in enumerate(columns) for name in column}
    before: dict[Slot, list[Slot]] = {box.name: [] for box in boxes}
    for box in boxes:
        for parent in box.parents:
            last: Slot = parent
            for column in range(depth[parent] + 1, depth[box.name]):
                before.setdefault((parent, column), [last])
                last = (parent, column)
            before[box.name].append(last)
    return before


def _tall(slot: Slot) -> float:
    return BOX_H if isinstance(slot, str) else BEND_H


def _height(column: Sequence[Slot]) -> float:
    return sum(_tall(slot) + GAP_Y for slot in column) - GAP_Y


def _edge(root: Element, parent: Point, bends: Sequence[Point], child: Point) -> None:
    """A line from box to box, level through the slots of the columns that it passes."""
    x, y = parent[0] + BOX_W, parent[1] + BOX_H / 2
    line = f"M{x:.0f} {y:.0f}"
    ends = [*((b[0], b[1] + BEND_H / 2, BOX_W) for b in bends), (child[0], child[1] + BOX_H / 2, 0)]
    for to_x, to_y, level in ends:
        half = GAP_X / 2
        line += f" C{x + half:.0f} {y:.0f} {to_x - half:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"
        line += f" H{to_x + level:.0f}" if level else ""
        x, y = to_x + level, to_y
    put(root, "path", d=line, css="edge")


def _box(root: Element, box: Box, place: tuple[float, float]) -> None:
    x, y = place
    group = put(root, "g", css=f"box {box.kind}")
    put(group, "title", f"{box.kind} {box.name}: {box.facts}")
    put(group, "rect", x=x, y=y, width=BOX_W, height=BOX_H, rx=6)
    put(group, "text", box.kind, x=x + 10, y=y + 15, css="kind")
    name = box.name if len(box.name) <= MOST_LETTERS else f"…{box.name[1 - MOST_LETTERS :]}"
    put(group, "text", name, x=x + 10, y=y + 28, css="name")
    put(group, "text", box.facts, x=x + 10, y=y + 40)
