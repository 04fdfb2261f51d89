"""A key that a block does not have is reported in every block of every shipped recipe, at its place, with the one meant.

Blocks and keys are found in the syntax tree, so a new recipe or a new amending file is tested as soon as it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from omrlang import syntax as s
from omrlang.compiler import load_all
from omrlang.diagnostics import MAX_ERRORS, Diagnostic, Reporter
from omrlang.parse import parse
from omrlang.source import SourceFile

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*(ROOT / "pipelines").rglob("*.omr"), *(ROOT / "stdlib").rglob("*.omr")])
NONSENSE = "qqzzy"
MISSPELT = (
    lambda word: word[:2] + word[3:],
    lambda word: word[:2] + word[1:],
    lambda word: word[0] + word[2] + word[1] + word[3:],
    lambda word: word[:-2] + "q" + word[-1],
)
"""A letter left out, one doubled, two swapped, one wrong."""


@dataclass(frozen=True)
class Planted:
    """``word`` is put in at an offset of the file; ``meant`` is the key of that block that it is near to."""

    at: int
    word: str
    meant: str | None = None


def planted(path: Path) -> Iterator[Planted]:
    """For every block a word that is near to nothing, and each of its keys misspelt by one letter."""
    file = parse(SourceFile(path, path.read_text()), Reporter())
    ways = cycle(MISSPELT)
    for block in blocks(file):
        at = block.span.start + 1
        yield Planted(at, NONSENSE)
        taken = {entry.path[0].id for entry in block.entries}
        for key in sorted(taken):
            word = next(ways)(key) if len(key) > 3 else NONSENSE
            if word not in taken and word != NONSENSE:
                yield Planted(at, word, key)


def blocks(file: s.File) -> Iterator[s.Block]:
    """Every block of a file, those within others too."""
    todo = [getattr(statement, "block", None) for statement in file.statements]
    while todo:
        block = todo.pop()
        if block is not None:
            yield block
            todo += [entry.block for entry in block.entries if isinstance(entry, s.Group)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_refuses_what_it_does_not_have(path: Path, copied: Path) -> None:
    text = path.read_text()
    every = sorted(planted(path), key=lambda item: item.at)
    beside = copied / path.relative_to(ROOT)
    for start in range(0, len(every), MAX_ERRORS):
        some = every[start : start + MAX_ERRORS]
        spoilt, offsets = _spoil(text, some)
        beside.write_text(spoilt)
        found = {item.span.start: item for item in load_all(beside)[1]}
        wrong = [
            item for item, at in zip(some, offsets, strict=True) if not _told(item, found.get(at))
        ]
        assert not wrong, [
            (item, found.get(at)) for item, at in zip(some, offsets, strict=True) if item in wrong
        ]
    beside.write_text(text)


def _spoil(text: str, some: list[Planted]) -> tuple[str, list[int]]:
    """The text with all of them put in, and where they stand then."""
    offsets, grown = [], 0
    for item in some:
        at = item.at + grown
        text = f"{text[:at]} {item.word} = 1, {text[at:]}"
        offsets.append(at + 1)
        grown += len(item.word) + len("  = 1, ")
    return text, offsets


def _told(item: Planted, said: Diagnostic | None) -> bool:
    """Whether the word is refused at its place, with the key that was meant."""
    if said is None or said.severity != "error" or said.span.text != item.word:
        return False
    return item.meant is None or f"`{item.meant}`" in (said.hint or "")
