"""Weights to pieces of a bounded size and back: what goes through a memory that two processes share.

The memory has two halves, of which one is filled while the other is read. It has no name, so nothing is left of it when both
processes are gone, and no limit of a container on named ones holds for it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from omr_runtime.engines.apart.messages import Bucket, Piece
from omr_runtime.engines.protocol import Weights

HALF_BYTES = 128 << 20
"""Of each of the two halves."""


def new_memory(half_bytes: int) -> int:
    """The descriptor of a new memory of two halves. It takes room as it is written to."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("omr-weights")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, 2 * half_bytes)
    return descriptor


def halves_of(descriptor: int) -> tuple[Tensor, Tensor]:
    """The memory as two tensors of bytes, which stay as long as they are used."""
    whole = torch.frombuffer(mmap.mmap(descriptor, os.fstat(descriptor).st_size), dtype=torch.uint8)
    middle = len(whole) // 2
    return whole[:middle], whole[middle:]


def cut(weights: Weights, room: int) -> Iterator[list[tuple[Piece, Tensor]]]:
    """Groups of at most ``room`` bytes, each piece with the bytes that are meant; a tensor may go over several groups."""
    group: list[tuple[Piece, Tensor]] = []
    used = 0
    for name, tensor in weights:
        left = tensor.detach().contiguous().view(-1).view(torch.uint8)
        while True:
            if used == room:
                yield group
                group, used = [], 0
            part, left = left[: room - used], left[room - used :]
            piece = Piece(name, tensor.dtype, tuple(tensor.shape), used, len(part))
            group.append((piece, part))
            used += len(part)
            if not len(left):
                break
    if group:
        yield group


def joined(
    buckets: Iterable[Bucket], halves: tuple[Tensor, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors again, each in memory of its own: an engine may keep it until all of its layer are there."""
    found = torch.empty(0, dtype=torch.uint8)
    filled = 0
    for bucket in buckets:
        for piece in bucket.pieces:
            if filled == 0:
                found = _room_for(piece)
            found[filled : filled + piece.size] = halves[bucket.half][
                piece.place : piece.place + piece.size
            ]
            filled += piece.size
            if filled == len(found):
                yield piece.name, found.view(piece.dtype).view(piece.shape)
                filled = 0


def _room_for(piece: Piece) -> Tensor:
    return torch.empty(piece.shape, dtype=piece.dtype).view(-1).view(torch.uint8)
