"""Values to JSON, which has no word for a number that is not finite: null stands for it, however deep it lies."""

from __future__ import annotations

import math
from collections.abc import Callable
from json import JSONEncoder
from typing import Any


def encoder(*, sort_keys: bool) -> Callable[[Any], str]:
    """What no JSON type is stands as its text.

    >>> encoder(sort_keys=True)({"b": [1, float("inf")], "a": float("nan")})
    '{"a": null, "b": [1, null]}'
    """
    encode = JSONEncoder(ensure_ascii=False, sort_keys=sort_keys, default=str, allow_nan=False).encode  # fmt: skip

    def as_json(value: Any) -> str:
        try:
            return encode(value)
        except ValueError:  # looked for only where there is one
            return encode(_finite(value))

    return as_json


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_finite(item) for item in value]
        case dict():
            return {name: _finite(item) for name, item in value.items()}
        case _:
            return value


json_line = encoder(sort_keys=False)
"""A record on one line, its columns in their order."""
