"""Texts to those that have most of their words in common, in the same order: Jaccard over runs of words, by MinHash.

The package rensa makes the hashes (Broder, "On the resemblance and containment of documents", 1997); bands of them find
candidates, whose similarity is then computed over the whole sets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import rensa

from omr_runtime.near.measure import Bands, Forms, Meet, Pairs, enough
from omrlang.types import Minhash

SEED = 1
BLOCK = 10_000
AT_HAND = 100_000
RECALL = 0.999
_WORD = re.compile(r"\w+")
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Words:
    """A form is the sorted 64-bit hashes of a text's runs of words."""

    def __init__(self, spec: Minhash) -> None:
        self.num_words = spec.words
        self.num_hashes = spec.hashes

    def encode(self, values: Sequence[str | None]) -> list[bytes | None]:
        runs = [None if value is None else word_runs(value, self.num_words) for value in values]
        hashes = iter(rensa.RMinHash.hash_token_sets([run for run in runs if run is not None]))
        return [
            None if run is None else np.unique(np.array(next(hashes), np.uint64)).tobytes()
            for run in runs
        ]

    def pairs(self, forms: Forms, at: float, meet: Meet) -> Iterator[Pairs]:
        sets = _Sets(forms)
        for one, other in meet(self._bands(sets, at)):
            like = [sets.jaccard(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True)]
            yield enough(one, other, np.array(like), at)

    def _bands(self, sets: _Sets, at: float) -> Bands:
        rows = rows_of_band(at, self.num_hashes)
        num_bands = self.num_hashes // rows
        for start, block in sets.blocks():
            made = rensa.RMinHash.digest_matrix_from_token_hash_sets(
                block, self.num_hashes, SEED
            ).to_rows()
            hashes = np.array(made, np.uint64)[:, : num_bands * rows]
            keys = np.zeros((len(block), num_bands), np.uint64)
            for row in range(rows):
                keys = (keys ^ hashes[:, row::rows]) * _MIX
                keys ^= keys >> np.uint64(29)
            numbers = np.repeat(np.arange(start, start + len(block)), num_bands)
            yield np.tile(np.arange(num_bands), len(block)), numbers, keys.ravel()


def word_runs(text: str, num_words: int) -> list[str]:
    """
    >>> word_runs("What is x?  What IS y?", 3)
    ['what is x', 'is x what', 'x what is', 'what is y']
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    words = _WORD.findall(plain)
    if len(words) < num_words:
        return [" ".join(words) or plain.strip()]
    return [" ".join(words[i : i + num_words]) for i in range(len(words) - num_words + 1)]


def rows_of_band(at: float, num_hashes: int) -> int:
    """Hashes that one key is made of: as many as still find ``RECALL`` of the pairs that are just ``at`` alike.

    A pair of Jaccard similarity s meets in a band of r hashes with probability s^r, in one of b bands with 1 - (1 - s^r)^b
    (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4).

    >>> rows_of_band(0.8, 128), rows_of_band(0.5, 128), rows_of_band(0.99, 128)
    (5, 3, 32)
    """
    found = [r for r in range(1, num_hashes + 1) if chance(at, r, num_hashes) >= RECALL]
    return max(found, default=1)


def chance(like: float, rows: int, num_hashes: int) -> float:
    """That two texts of Jaccard similarity ``like`` meet in a band."""
    return float(1 - (1 - like**rows) ** (num_hashes // rows))


class _Sets:
    """The forms as sets of hashes; those that were just compared stay at hand."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._read = lru_cache(AT_HAND)(self._set)

    def blocks(self) -> Iterator[tuple[int, list[list[int]]]]:
        """(first number, hashes of each form)."""
        for start in range(0, len(self._forms), BLOCK):
            numbers = range(start, min(start + BLOCK, len(self._forms)))
            yield start, [np.frombuffer(self._forms[n], np.uint64).tolist() for n in numbers]

    def jaccard(self, one: int, other: int) -> float:
        a, b = self._read(one), self._read(other)
        common = len(a & b)
        return common / (len(a) + len(b) - common)

    def _set(self, number: int) -> frozenset[int]:
        return frozenset(np.frombuffer(self._forms[number], np.uint64).tolist())
