"""Drawn puzzles: the same for the same seed, the picture shows what the solution says."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from PIL import Image

from omr_runtime.chat import parse_response, response_text
from omr_runtime.synthetic import shapes
from omrlang.types import Prompt

PROMPT = Prompt(name="short")


def test_a_puzzle_depends_on_seed_and_number_only() -> None:
    few, many = list(shapes.draw(3, 5)), list(shapes.draw(8, 5))
    assert many[:3] == few
    assert few != list(shapes.draw(3, 6))


@pytest.mark.parametrize("grid", [2, 3])
def test_pictures_are_28_pixels_a_cell_and_in_colour(grid: int) -> None:
    row = next(shapes.draw(1, 1, shapes.Difficulty(grid=grid)))
    with Image.open(io.BytesIO(row["images"][0])) as image:
        assert (image.size, image.mode) == ((28 * grid, 28 * grid), "RGB")


@pytest.mark.parametrize("grid", [2, 3])
def test_the_solution_is_what_the_picture_shows(grid: int) -> None:
    difficulty = shapes.Difficulty(grid=grid)
    for number in range(100):
        puzzle = shapes.invent(1, number, difficulty)
        with Image.open(io.BytesIO(shapes.picture(puzzle, difficulty))) as image:
            for place, thing in enumerate(puzzle.cells):
                row, column = divmod(place, grid)
                left, top = column * shapes.CELL, row * shapes.CELL
                seen = image.crop((left, top, left + shapes.CELL, top + shapes.CELL))
                assert _colours(seen) == ({shapes.COLOURS[thing.colour]} if thing else set())


def _colours(image: Image.Image) -> set[object]:
    """The colours of shapes that fill more than an edge of the picture."""
    counts = image.getcolors(10_000) or []
    return {colour for count, colour in counts if count > 60 and colour != shapes.BACKGROUND}


def test_the_answer_is_the_number_of_cells_that_are_named_as_asked() -> None:
    for row in shapes.draw(200, 9):
        cells = shapes.read_solution(row["thinking"])
        asked = shapes.asked_by(row["question"])
        assert cells is not None
        assert asked is not None
        assert str(cells.count(asked)) == row["answer"]


def test_answers_are_spread() -> None:
    answers = Counter(row["answer"] for row in shapes.draw(1000, 4))
    assert max(answers.values()) < 500
    assert len(answers) >= 4


def test_a_solution_is_in_the_reasoning_format() -> None:
    row = next(shapes.draw(1, 2))
    parsed = parse_response(response_text(row, PROMPT), PROMPT)
    assert parsed.format_ok
    assert parsed.final_answer == row["answer"]


def test_difficulty_is_adjustable() -> None:
    easy = shapes.Difficulty(grid=2, fewest=1, most=2, colours=("red", "blue"), kinds=("circle",))
    puzzles = [shapes.invent(1, number, easy) for number in range(100)]
    assert {len(puzzle.cells) for puzzle in puzzles} == {4}
    assert {sum(thing is not None for thing in puzzle.cells) for puzzle in puzzles} == {1, 2}


@pytest.mark.parametrize("text", ["How many people?", "How many red circles?", "Why?", ""])
def test_questions_of_other_sets_are_told_apart(text: str) -> None:
    assert shapes.asked_by(text) is None
