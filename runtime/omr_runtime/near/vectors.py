"""Values to those that an encoder puts next to each other: cosines of all pairs, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from omr_runtime.near.clusters import Ints
from omr_runtime.near.measure import Forms, Meet, Pairs, enough

BLOCK = 4_096
SLACK = 1e-4
"""By how much single precision and the order of a sum may be off; what comes so close is computed again."""

Encoder: TypeAlias = Callable[[Any], "npt.NDArray[np.float32] | None"]
"""One value to one vector, whatever is encoded beside it; None for a value that has nothing to compare."""


class Vectors:
    """A form is a vector of length 1 in single precision, or nothing for a row without images."""

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode

    def encode(self, values: Sequence[Any]) -> list[bytes | None]:
        known: dict[Any, bytes | None] = {}
        keys = [tuple(value) if isinstance(value, list) else value for value in values]
        for key in keys:
            if key not in known:
                known[key] = self._form(key)
        return [known[key] for key in keys]

    def _form(self, value: Any) -> bytes | None:
        if value is None or value == ():
            return None if value is None else b""
        vector = self._encode(value)
        length = 0.0 if vector is None else float(np.linalg.norm(vector.astype(np.float64)))
        if vector is None or not length or not np.isfinite(length):
            return None
        return (vector / length).astype(np.float32).tobytes()

    def pairs(self, forms: Forms, at: float, meet: Meet) -> Iterator[Pairs]:
        filled = np.flatnonzero(forms.lengths())
        blocks = [filled[start : start + BLOCK] for start in range(0, len(filled), BLOCK)]
        for place, left in enumerate(blocks):
            rows = _matrix(forms, left)
            for right in blocks[place:]:
                columns = rows if right is left else _matrix(forms, right)
                yield _close(left, rows, right, columns, at)


def _matrix(forms: Forms, numbers: Ints) -> npt.NDArray[np.float32]:
    """[numbers, width]"""
    packed = b"".join(forms[number] for number in numbers.tolist())
    return np.frombuffer(packed, np.float32).reshape(len(numbers), -1)


def _close(
    left: Ints,
    rows: npt.NDArray[np.float32],
    right: Ints,
    columns: npt.NDArray[np.float32],
    at: float,
) -> Pairs:
    one, other = np.nonzero(rows @ columns.T >= at - SLACK)
    once = left[one] < right[other]
    one, other = one[once], other[once]
    like = np.einsum("nd,nd->n", rows[one].astype(np.float64), columns[other].astype(np.float64))
    return enough(left[one], right[other], like, at)
