"""A seed and a number -> a drawn puzzle: a picture of shapes, a counting question, its answer and a solution in steps.

A picture is a grid of cells, at most one shape in each, jittered in place and size. The solution says what each cell
holds, in reading order, then the number, in words that the vocabulary ``shapes`` holds as single tokens.
"""

from __future__ import annotations

import io
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

CELL = 28
BACKGROUND = (122, 116, 104)
"""The mean that image processors subtract: empty ground becomes zero, so that shapes are all that a model sees."""
COLOURS = {
    "red": (255, 20, 20),
    "green": (10, 190, 30),
    "blue": (20, 20, 255),
    "yellow": (255, 235, 20),
}
KINDS = ("circle", "square", "triangle")
NOTHING = "none"


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn shape in the cell ``row``, ``column``; ``x`` and ``y`` are its centre and ``size`` its half width."""

    kind: str
    colour: str
    x: int
    y: int
    size: int


@dataclass(frozen=True, slots=True)
class Puzzle:
    """``cells`` in reading order, None where nothing is; ``asked`` is a colour or a kind."""

    cells: tuple[Thing | None, ...]
    asked: str

    @property
    def question(self) -> str:
        return f"How many {self.asked}?" if self.asked in COLOURS else f"How many {self.asked}s?"

    @property
    def named(self) -> tuple[str, ...]:
        """What each cell holds in the terms of the question: its colour or its kind."""
        return tuple(NOTHING if thing is None else self._name(thing) for thing in self.cells)

    @property
    def answer(self) -> str:
        return str(self.named.count(self.asked))

    def _name(self, thing: Thing) -> str:
        return thing.colour if self.asked in COLOURS else thing.kind


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What is drawn: ``grid`` cells a side, between ``fewest`` and ``most`` shapes, in the given colours and kinds."""

    grid: int = 2
    fewest: int = 1
    most: int = 4
    colours: tuple[str, ...] = ("red", "green", "blue")
    kinds: tuple[str, ...] = KINDS
    jitter: int = 2
    half_widths: tuple[int, ...] = (7, 8, 9, 10)


STANDARD = Difficulty()


def draw(n: int, seed: int, difficulty: Difficulty = STANDARD) -> Iterator[dict[str, Any]]:
    """The first ``n`` puzzles of a seed as rows: ``images`` (PNG bytes), ``question``, ``answer``, ``thinking``."""
    for number in range(n):
        puzzle = invent(seed, number, difficulty)
        yield {
            "images": [picture(puzzle, difficulty)],
            "question": puzzle.question,
            "answer": puzzle.answer,
            "thinking": solution(puzzle.named, puzzle.asked),
        }


def invent(seed: int, number: int, difficulty: Difficulty = STANDARD) -> Puzzle:
    """Puzzle ``number`` of a seed; it depends on nothing else."""
    rng = random.Random(f"shapes|{seed}|{number}")
    asked = rng.choice([*difficulty.colours, *difficulty.kinds])
    places = range(difficulty.grid**2)
    filled = set(rng.sample(places, rng.randint(difficulty.fewest, difficulty.most)))
    cells = tuple(_thing(rng, place, difficulty) if place in filled else None for place in places)
    return Puzzle(cells, asked)


def _thing(rng: random.Random, cell: int, difficulty: Difficulty) -> Thing:
    row, column = divmod(cell, difficulty.grid)
    x = column * CELL + CELL // 2 + rng.randint(-difficulty.jitter, difficulty.jitter)
    y = row * CELL + CELL // 2 + rng.randint(-difficulty.jitter, difficulty.jitter)
    kind, colour = rng.choice(difficulty.kinds), rng.choice(difficulty.colours)
    return Thing(kind, colour, x, y, rng.choice(difficulty.half_widths))


def solution(named: Sequence[str], asked: str) -> str:
    """The steps: what each cell holds, row by row, then how many are what was asked.

    >>> solution(["red", "none", "red", "blue"], "red")
    'red none, red blue: 2'
    """
    side = math.isqrt(len(named))
    rows = [" ".join(named[start : start + side]) for start in range(0, len(named), side)]
    return f"{', '.join(rows)}: {named.count(asked)}"


def asked_by(question: str) -> str | None:
    """What a question of this set counts; None if it is not of this set.

    >>> asked_by("How many circles?"), asked_by("How many red?"), asked_by("Why?")
    ('circle', 'red', None)
    """
    match = re.fullmatch(r"How many (\w+?)(s?)\?", question)
    if match is None or match[1] not in (KINDS if match[2] else tuple(COLOURS)):
        return None
    return match[1]


def read_solution(thinking: str) -> list[str] | None:
    """The words for the cells, in reading order; None if the text is no solution of this set.

    >>> read_solution("red none, red blue: 2")
    ['red', 'none', 'red', 'blue']
    """
    named = thinking.rpartition(":")[0].replace(",", " ").split()
    known = {NOTHING, *COLOURS, *KINDS}
    return named if named and known.issuperset(named) else None


def picture(puzzle: Puzzle, difficulty: Difficulty = STANDARD) -> bytes:
    """The puzzle as a PNG of ``grid * 28`` pixels a side."""
    side = difficulty.grid * CELL
    image = Image.new("RGB", (side, side), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for thing in filter(None, puzzle.cells):
        _draw(pen, thing)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _draw(pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    fill = COLOURS[thing.colour]
    left, top = thing.x - thing.size, thing.y - thing.size
    right, bottom = thing.x + thing.size, thing.y + thing.size
    if thing.kind == "circle":
        pen.ellipse((left, top, right, bottom), fill)
    elif thing.kind == "square":
        pen.rectangle((left, top, right, bottom), fill)
    else:
        pen.polygon([(thing.x, top), (right, bottom), (left, bottom)], fill)
