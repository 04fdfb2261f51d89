"""Row sets to an index of what their questions and images are, and a row to what it shares with them.

A row was seen where its question has ``n`` words in a row in common with a question of the sets (13 by default, as in
the n-gram test of GPT-3, arXiv 2005.14165, appendix C), or one of its images is one of theirs, byte for byte. Words are
runs of letters and digits, in lower case and NFKC. A question of fewer than ``n`` words counts as one run of its own
length, and only where neither row has an image: "What is x?" over another picture is another question. Asked for a
likeness of images, a row was also seen where one of its images looks like one of theirs, by perceptual hash.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from omr_runtime.near.pictures import Pictures

NUM_WORDS = 13

_WORD = re.compile(r"\w+")


Hit: TypeAlias = tuple[int, str, str]
"""The number of a set, the id of a row of it, and what is shared with that."""


@dataclass(slots=True)
class Looks:
    """Images of the sets by their perceptual hash; ``found`` maps a hash to the first set and the lowest id."""

    at: float
    pictures: Pictures
    found: dict[bytes, tuple[int, str]] = field(default_factory=dict)
    all: Any = None

    def add(self, here: tuple[int, str], images: Sequence[str]) -> None:
        for image in images:
            mark = self.pictures.hash(image)
            self.found[mark] = min(here, self.found.get(mark, here))
        self.all = None

    def look(self, images: Sequence[str]) -> Iterator[Hit]:
        """Rows with an image that looks like one of these."""
        if self.all is None:
            self.all = self.pictures.matrix([*self.found])
        places = [*self.found.values()]
        for image in images:
            like = self.pictures.alike(self.pictures.hash(image), self.all)
            for number in (like >= self.at).nonzero()[0].tolist():
                yield *places[number], f"an image in common ({like[number]:.2f} alike)"


@dataclass(slots=True)
class Seen:
    """``found`` maps what is looked for to the first set that has it and the lowest id in there, so that no order of
    rows matters."""

    num_words: int = NUM_WORDS
    looks: Looks | None = None
    names: list[str] = field(default_factory=list)
    found: dict[bytes, tuple[int, str]] = field(default_factory=dict)

    def add(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in one set; sets that come first are named first."""
        place = len(self.names)
        self.names.append(name)
        for row in rows:
            here = (place, str(row["id"]))
            for mark, _ in _marks(row, self.num_words):
                self.found[mark] = min(here, self.found.get(mark, here))
            if self.looks:
                self.looks.add(here, row.get("images") or ())

    def look(self, row: Mapping[str, Any]) -> str | None:
        """What the row shares, with which row of which set; None if nothing."""
        hits: list[Hit] = [
            (*self.found[mark], what)
            for mark, what in _marks(row, self.num_words)
            if mark in self.found
        ]
        if not hits and self.looks:
            hits += self.looks.look(row.get("images") or ())
        if not hits:
            return None
        place, other, what = min(hits)
        return f"{what} with row {other} of {self.names[place]}"


def _marks(row: Mapping[str, Any], num_words: int) -> Iterator[tuple[bytes, str]]:
    """What a row can share, as short hashes, each with how it is called."""
    images = row.get("images") or ()
    for image in images:
        yield _mark("image", image), "an image in common"
    words = _WORD.findall(unicodedata.normalize("NFKC", row.get("question") or "").lower())
    if len(words) >= num_words:
        for start in range(len(words) - num_words + 1):
            run = words[start : start + num_words]
            yield _mark("words", *run), f"{num_words} words in common"
    elif words and not images:
        yield _mark("words", *words), "the whole question in common"


def _mark(kind: str, *parts: str) -> bytes:
    return blake2b("\0".join((kind, *parts)).encode(), digest_size=12).digest()
