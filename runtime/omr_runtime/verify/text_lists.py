"""The text of a Python or JSON list becomes its items: nothing in it is run, it holds plain values or it is no list."""

from __future__ import annotations

import ast
import json
import math
import warnings
from typing import Any

MAX_CHARACTERS = 100_000


def read_list(text: str) -> list[Any] | None:
    """The items, None if it is no list of texts, numbers and truth values.

    JSON goes first: what both can read they read alike but for escapes that Python does not know.

    >>> read_list("['it\\'s', \"x\", 3]"), read_list('["a", null]'), read_list("a, b"), read_list("[f()]")
    (["it's", 'x', 3], ['a', None], None, None)
    """
    if len(text) > MAX_CHARACTERS:
        return None
    for read in (json.loads, _python):
        try:
            found = read(text.strip())
        # MemoryError is how Python's parser says that brackets are nested too deep.
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | tuple) and all(_is_plain(item) for item in found):
            return list(found)
    return None


def _python(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of `\d` in a text, which Python reads as it stands
        return ast.literal_eval(text)


def _is_plain(item: Any) -> bool:
    if isinstance(item, float):
        return math.isfinite(item)
    return item is None or isinstance(item, str | int)
