"""Things to names that are the same on every machine: ids of rows and samples, hashes of content, orders by seed.

Alone knows what goes into an id. Everything is sha256 of an unambiguous encoding, because other hashes are not
promised to stay the same between versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _json  # what json.dumps makes of a text
from typing import TypeAlias

Part: TypeAlias = str | int | float | bool | Sequence["Part"] | None


def digest(*parts: Part) -> str:
    """32 hex digits that stand for the parts, in order.

    >>> digest("a", 1) == digest("a", 1), digest("a", "1") == digest("a", 1)
    (True, False)
    """
    return _hashed(json.dumps(parts, separators=(",", ":"), allow_nan=False))


def _hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


def row_id(origin: str, file: str, position: int) -> str:
    """The id of a source row: ``origin`` names the data as read, ``position`` is the line or row in it from 1."""
    return digest("row", origin, file, position)


def row_ids(origin: str, file: str, positions: Iterable[int]) -> list[str]:
    """``row_id`` of each position.

    >>> row_ids("o", "a.jsonl", [7]) == [row_id("o", "a.jsonl", 7)]
    True
    """
    start = f'["row",{_json(origin)},{_json(file)},'
    return [_hashed(f"{start}{position}]") for position in positions]


def content_hash(
    question: str | None,
    images: Sequence[str] | None,
    options: Sequence[str] | None,
    answer: str | None,
    videos: Sequence[str] = (),
    audios: Sequence[str] = (),
) -> str:
    """What two rows share when they ask the same; ``images``, ``videos`` and ``audios`` are digests."""
    seen: list[Part] = [list(videos), list(audios)] if videos or audios else []
    return digest("content", question, list(images or ()), list(options or ()), answer, *seen)


def content_hashes(questions: Iterable[str], answers: Iterable[str | None]) -> list[str]:
    """``content_hash`` of each text question with its answer, without images or options.

    >>> content_hashes(["é"], [None]) == [content_hash("é", None, None, None)]
    True
    """
    return [
        _hashed(
            f'["content",{_json(question)},[],[],{"null" if answer is None else _json(answer)}]'
        )
        for question, answer in zip(questions, answers, strict=True)
    ]


def sample_id(parent_id: str, key: str, index: int) -> str:
    """The id of sample ``index`` of a row under a sampling key."""
    return digest("sample", parent_id, key, index)


def copy_id(original_id: str, number: int) -> str:
    """The id of the further occurrence ``number`` (from 1) of a row that stands in a mix more than once."""
    return digest("copy", original_id, number)


def order_key(seed: int, purpose: str, row: str) -> str:
    """The place of a row in an order that depends on nothing but seed, purpose and row.

    The same text as SQL makes it: ``sha256(concat(seed, '|', purpose, '|', row))``.
    """
    return sha256(f"{seed}|{purpose}|{row}".encode()).hexdigest()
