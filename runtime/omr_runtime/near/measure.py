"""How values of one column are compared: each becomes a form once, and forms give the pairs that are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from omr_runtime.near.clusters import Floats, Ints

EXACT = 6
"""Digits to which a likeness counts, so that no order of a sum decides whether a threshold is reached."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Numbers of forms that are alike, ``one`` below ``other``, [pairs]."""

    one: Ints
    other: Ints
    like: Floats


Bands: TypeAlias = Iterable[tuple[Ints, Ints, np.ndarray[Any, np.dtype[np.uint64]]]]
"""Blocks of (band, number, key): forms of equal key in one band may be alike."""
Meet: TypeAlias = Callable[[Bands], Iterator[tuple[Ints, Ints]]]
"""Who may be alike, in blocks ordered by the first; each pair once."""


class Forms:
    """Forms by their numbers, on disk: one file with all of them one after the other, ``ends`` [forms] where each ends."""

    def __init__(self, file: Path, ends: Ints) -> None:
        self._data = (
            np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
        )
        self.starts = np.concatenate([[0], ends])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> bytes:
        return bytes(self._data[self.starts[number] : self.starts[number + 1]])

    def lengths(self) -> Ints:
        """Bytes of each."""
        return np.diff(self.starts)


class Measure(Protocol):
    """``words``, ``pictures`` and ``vectors`` are measures."""

    def encode(self, values: Sequence[Any]) -> list[bytes | None]:
        """What is compared of each value: equal forms are alike entirely; None is like nothing."""
        ...

    def pairs(self, forms: Forms, at: float, meet: Meet) -> Iterator[Pairs]:
        """The pairs of different forms that are at least ``at`` alike, each once."""
        ...


def enough(one: Ints, other: Ints, like: Floats, at: float) -> Pairs:
    """Those that reach the threshold."""
    like = np.round(like, EXACT)
    kept = like >= round(at, EXACT)
    return Pairs(one[kept], other[kept], like[kept])
