"""Drawn puzzles -> traces that a program writes: a teacher for the quickstart. No model answers here.

With probability ``right`` a trace is the puzzle's own solution; otherwise it is wrong in one of several ways, so that
verification has something to throw out. Each sample depends on its seed alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omr_runtime.chat import response_text
from omr_runtime.engines.protocol import Completion, Done, Request, failed
from omr_runtime.synthetic import shapes
from omrlang.types import Prompt, Scripted

Row = Mapping[str, Any]


class ScriptedEngine:
    """Writes about puzzles of the set ``shapes`` that still carry their solution in ``thinking``."""

    name = "scripted"
    version = "1"

    def __init__(self, source: Scripted) -> None:
        self.right = source.right

    def generate(self, requests: Iterable[Request], done: Done) -> None:
        """One trace a sample. A row of another set is a failed sample."""
        for request in requests:
            for completion in self._answer(request):
                done(completion)

    def _answer(self, request: Request) -> list[Completion]:
        row = request.row
        asked = shapes.asked_by(row.get("question") or "")
        cells = shapes.read_solution(row.get("thinking") or "")
        if asked is None or cells is None:
            return failed(
                request, "the scripted teacher knows drawn puzzles with their solution only"
            )
        samples = []
        for index, seed in zip(request.indices, request.seeds, strict=True):
            rng = random.Random(f"scripted|{seed}|{request.key}")
            text = trace(rng, cells, asked, request.prompt, self.right)
            samples.append(Completion(request.key, index, text, num_words(text), "stop"))
        return samples

    def close(self) -> None:
        """Nothing is held."""


def num_words(text: str) -> int:
    """Tags, words, numbers and marks: what a program that has no tokenizer counts as tokens."""
    return len(re.findall(r"</?\w+>|\w+|[^\w\s]", text))


def trace(
    rng: random.Random, cells: Sequence[str], asked: str, prompt: Prompt, right: float
) -> str:
    """A right trace with probability ``right``, else one that is wrong in a way chosen evenly."""
    if rng.random() < right:
        return _render(shapes.solution(cells, asked), str(cells.count(asked)), prompt)
    wrong = rng.choice((_misread, _miscounted, _broken, _unanswered))
    return wrong(rng, cells, asked, prompt)


def _render(thinking: str, answer: str, prompt: Prompt) -> str:
    return response_text({"thinking": thinking, "final_answer": answer}, prompt)


def _misread(rng: random.Random, cells: Sequence[str], asked: str, prompt: Prompt) -> str:
    """One cell is taken for another thing; the count follows from that."""
    names = shapes.COLOURS if asked in shapes.COLOURS else shapes.KINDS
    misread = list(cells)
    place = rng.randrange(len(cells))
    others = [name for name in names if name != asked]
    misread[place] = rng.choice(others) if cells[place] == asked else asked
    return _render(shapes.solution(misread, asked), str(misread.count(asked)), prompt)


def _miscounted(rng: random.Random, cells: Sequence[str], asked: str, prompt: Prompt) -> str:
    """All cells are right and the number is not."""
    number = cells.count(asked)
    wrong = number + 1 if number == 0 else number + rng.choice((-1, 1))
    steps = shapes.solution(cells, asked).rpartition(":")[0]
    return _render(f"{steps}: {wrong}", str(wrong), prompt)


def _broken(rng: random.Random, cells: Sequence[str], asked: str, prompt: Prompt) -> str:
    """The answer is right, but a closing tag is missing or something follows it."""
    text = _render(shapes.solution(cells, asked), str(cells.count(asked)), prompt)
    tag = rng.choice(
        [f"</{name}>" for name in (prompt.thinking, prompt.answer) if name is not None]
    )
    return rng.choice((text.replace(tag, ""), f"{text} yes"))


def _unanswered(rng: random.Random, cells: Sequence[str], asked: str, prompt: Prompt) -> str:
    """Thinking alone."""
    text = _render(shapes.solution(cells, asked), "", prompt)
    return text[: text.index(f"<{prompt.answer}>")]
