"""Lists of images to those that look the same: perceptual hashes that differ in few bits.

The hash is that of the package imagehash (discrete cosine transform, its lowest frequencies above their median). Pairs are
found by the pigeonhole principle: of d + 1 parts of two hashes that differ in at most d bits one is equal (Norouzi,
Punjani, Fleet, "Fast search in Hamming space with multi-index hashing", 2012), so none is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import imagehash
import numpy as np
import numpy.typing as npt

from omr_runtime.near.clusters import Floats, Ints
from omr_runtime.near.measure import Bands, Forms, Meet, Pairs, enough
from omrlang.types import Phash

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK = 50_000
AT_HAND = 100_000
Bits = npt.NDArray[np.bool_]
Packed = npt.NDArray[np.uint8]


class Pictures:
    """A form is the packed hashes of a row's images, in order."""

    def __init__(self, spec: Phash, open_image: Callable[[str], Image]) -> None:
        self.size = spec.size
        self.num_bits = spec.size * spec.size
        self.num_bytes = -(-self.num_bits // 8)
        self._open = open_image
        self.hash = lru_cache(AT_HAND)(self._hash_of)

    def encode(self, values: Sequence[Sequence[str] | None]) -> list[bytes | None]:
        return [b"".join(self.hash(digest) for digest in images or ()) for images in values]

    def _hash_of(self, digest: str) -> bytes:
        """The packed hash of one image, by its digest."""
        found: Any = imagehash.phash(self._open(digest), hash_size=self.size)
        return np.packbits(found.hash.ravel()).tobytes()

    def matrix(self, hashes: Sequence[bytes]) -> Packed:
        """[hashes, bytes]"""
        return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, self.num_bytes)

    def alike(self, one: bytes, others: Packed) -> Floats:
        """How like each of the others one hash is, [others]."""
        differ = np.bitwise_count(others ^ np.frombuffer(one, np.uint8)).sum(axis=1, dtype=np.int64)
        like: Floats = 1 - differ / self.num_bits
        return like

    def pairs(self, forms: Forms, at: float, meet: Meet) -> Iterator[Pairs]:
        lengths = forms.lengths()
        for one, other in meet(self._bands(forms, lengths, at)):
            for size in np.unique(lengths[one]):
                same = lengths[one] == size
                ends = (one[same], other[same])
                yield enough(*ends, self._like(forms, *ends, int(size)), at)

    def _bands(self, forms: Forms, lengths: Ints, at: float) -> Bands:
        """Keys of the parts of the first image's hash, apart for each number of images."""
        num_parts = int((1 - at) * self.num_bits + 1e-9) + 1
        parts = np.array_split(np.arange(self.num_bits), min(num_parts, self.num_bits))
        filled = np.flatnonzero(lengths)
        for start in range(0, len(filled), BLOCK):
            numbers = filled[start : start + BLOCK]
            bits = self._bits(b"".join(forms[n][: self.num_bytes] for n in numbers.tolist()))
            if num_parts > self.num_bits:
                bits[:] = False  # any two may be alike
            for band, part in enumerate(parts):
                keys = _keys(bits[:, part], lengths[numbers])
                yield np.full(len(numbers), band), numbers, keys

    def _bits(self, packed: bytes) -> Bits:
        """[images, bits]"""
        rows = np.frombuffer(packed, np.uint8).reshape(-1, self.num_bytes)
        return np.unpackbits(rows, axis=1)[:, : self.num_bits].astype(bool)

    def _like(self, forms: Forms, one: Ints, other: Ints, size: int) -> Floats:
        """Of each pair of rows the least alike pair of images, both ``size`` bytes."""
        left, right = (
            np.frombuffer(b"".join(forms[n] for n in side.tolist()), np.uint8)
            for side in (one, other)
        )
        shape = (len(one), size // self.num_bytes, self.num_bytes)
        differ = np.bitwise_count(left ^ right).reshape(shape).sum(axis=2, dtype=np.int64)
        like: Floats = 1 - differ.max(axis=1) / self.num_bits
        return like


def _keys(bits: Bits, lengths: Ints) -> npt.NDArray[np.uint64]:
    """Equal for equal bits and lengths, for others hardly ever."""
    keys = lengths.astype(np.uint64)
    for word in np.packbits(bits, axis=1).T:
        keys = (keys ^ word) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
