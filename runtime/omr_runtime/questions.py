"""Rows and a prompt -> what the model is asked of each row, in some thirty bytes; and the requests for what is missing.

A hundred thousand rows with their texts fill gigabytes, so rows are read again from disk each time they are needed.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from omr_runtime import chat
from omr_runtime.engines.protocol import Decoding, Request
from omr_runtime.identity import digest
from omr_runtime.sample_store import SampleStore, tag_of, tags
from omr_runtime.spool import RANK, Spool, parts_of
from omr_runtime.store import MEDIA, ImageStore, Media, MediaStore
from omr_runtime.work import ROW
from omrlang.types import Prompt

Row: TypeAlias = dict[str, Any]
SEEDS = 2**31
KEY_BYTES = 16
BATCH_ROWS = 2_000


@dataclass(slots=True)
class Questions:
    """What the model is asked, by the number of the row: rows that look the same to it have the same key.

    ``lengths`` are characters of the question and its options, ``sizes`` bytes of the whole row; ``refused`` says
    of a row why the prompt cannot show it.
    """

    keys: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    refused: dict[int, str] = field(default_factory=dict)

    @staticmethod
    def of(rows: Iterable[Row], prompt: Prompt) -> Questions:
        found = Questions()
        for row in rows:
            found._add(row, prompt)
        return found

    def __len__(self) -> int:
        return len(self.lengths)

    def key(self, number: int) -> bytes:
        return bytes(self.keys[number * KEY_BYTES : (number + 1) * KEY_BYTES])

    def _add(self, row: Row, prompt: Prompt) -> None:
        try:
            shown = json.dumps(chat.messages(row, prompt), sort_keys=True)
            key = digest("question", row.get("content"), shown, list(row.get("images") or ()))
        except chat.UnusableRow as error:
            key = digest("unusable", row["id"])
            self.refused[len(self)] = str(error)
        self.keys += bytes.fromhex(key)
        texts = [row["question"], *(row.get("options") or ())]
        self.lengths.append(sum(map(len, texts)))
        self.sizes.append(sum(len(value) for value in row.values() if isinstance(value, str)) + 500)

    def firsts(self) -> list[int]:
        """For each row the first one with its key."""
        size = len(self)
        keys = pa.Array.from_buffers(pa.binary(KEY_BYTES), size, [None, pa.py_buffer(self.keys)])
        found: list[int] = pc.index_in(keys, value_set=keys).to_pylist()
        return found

    def names(self, spans: Iterable[tuple[int, range]]) -> pa.Array:
        """The names of samples: of each row those with these indices."""
        return tags(tag_of(self.key(number), index) for number, span in spans for index in span)


SpanOf: TypeAlias = Callable[[int], range]
"""The indices of the samples that are meant of a row."""


# ---- what is missing -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Wanted:
    """Numbers of rows, and the indices of the samples that are asked of each."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    indices: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def num_samples(self) -> int:
        return sum(map(len, self.indices))


def missing(questions: Questions, store: SampleStore, span_of: SpanOf) -> Wanted:
    """Each different question with the indices that the store lacks and nobody has refused in this process."""
    wanted = Wanted()
    same: dict[tuple[int, ...], tuple[int, ...]] = {}
    spans = _merged(questions, span_of)
    names = questions.names(spans)
    todo = zip(names.to_pylist(), store.has(names).to_pylist(), strict=True)
    for number, span in spans:
        own = zip(span, islice(todo, len(span)), strict=True)
        lacking = tuple(
            index for index, (name, there) in own if not there and not store.error(name)
        )
        if lacking:
            wanted.numbers.append(number)
            wanted.indices.append(same.setdefault(lacking, lacking))
    return wanted


def _merged(questions: Questions, span_of: SpanOf) -> list[tuple[int, range]]:
    """The first row of each key with all that rows of the key want, less those that the prompt cannot show."""
    merged: dict[int, range] = {}
    same: dict[range, range] = {}
    for number, first in enumerate(questions.firsts()):
        span = span_of(number)
        if not span or number in questions.refused:
            continue
        other = merged.get(first, span)
        both = range(min(span.start, other.start), max(span.stop, other.stop))
        merged[first] = same.setdefault(both, both)
    return sorted(merged.items(), key=itemgetter(0))


# ---- asking ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asking:
    """How a question is put: the same for all of a stage."""

    prompt: Prompt
    decoding: Decoding
    seed: int
    images: ImageStore
    media: Mapping[Media, MediaStore]

    def request(self, key: str, row: Row, indices: tuple[int, ...]) -> Request:
        start = first_seed(self.seed, key)
        seeds = tuple(start + index for index in indices)
        paths = tuple(self.images.path(name) for name in row.get("images") or ())
        heard = [tuple(map(self.media[kind].path, row.get(kind) or ())) for kind in MEDIA]
        return Request(key, row, self.prompt, indices, seeds, self.decoding, paths, *heard)


def first_seed(seed: int, key: str) -> int:
    """The seed of a question's sample 0; sample i has the number i above it."""
    return int(sha256(f"{seed}|sample|{key}".encode()).hexdigest()[:12], 16) % (SEEDS - 2**20)


def requests(
    rows: Iterable[Row], questions: Questions, wanted: Wanted, asking: Asking, folder: Path
) -> Generator[Request]:
    """Longest questions first, so that none of them is what everyone waits for at the end."""
    order = _longest_first(questions, wanted)
    sizes = pa.array([questions.sizes[wanted.numbers[at]] for at in order], pa.int64())
    with Spool(folder, parts_of(sizes)) as spool:
        _spool(rows, spool, {wanted.numbers[at]: rank for rank, at in enumerate(order)})
        for row in spool.read():
            at = order[row.pop(RANK)]
            yield asking.request(questions.key(wanted.numbers[at]).hex(), row, wanted.indices[at])


def _longest_first(questions: Questions, wanted: Wanted) -> array[int]:
    places = range(len(wanted.numbers))
    return array(
        "q", sorted(places, key=lambda at: questions.lengths[wanted.numbers[at]], reverse=True)
    )


def _spool(rows: Iterable[Row], spool: Spool, ranks: Mapping[int, int]) -> None:
    chosen = ((ranks[number], row) for number, row in enumerate(rows) if number in ranks)
    while batch := list(islice(chosen, BATCH_ROWS)):
        spool.add(pa.Table.from_pylist([row for _, row in batch], ROW), [rank for rank, _ in batch])
