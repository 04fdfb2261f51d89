"""The segments of a packed sequence: where each stands, which prompt it follows, and which of them share a batch.

A segment attends to its own tokens, causally, and to the prompt before it. That prompt may stand elsewhere: the responses
of a group share one, read once (a branch has ``prefix`` tokens there). Alone knows how segments are laid side by side
where no variable-length kernel is: sorted by length, so that little is filling, which stands after every real token and so
needs no mask of its own. Legend: T packed tokens, S segments, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

MAX_FILLING = 0.25
"""Segments share a batch while at most this part of it is filling."""


class Segments:
    """The lengths of the segments, in order, and for each the tokens ``(start, number)`` of a prompt that it goes on from.
    ``pictures`` [T] is the number of the image that a token belongs to, 0 for text, where those of an image see each other.
    ``masks`` are kept for the layers to come: of a group, under a window, on a device."""

    def __init__(
        self,
        lengths: Sequence[int],
        prefixes: Sequence[tuple[int, int]] | None = None,
        pictures: Tensor | None = None,
    ) -> None:
        self.lengths = tuple(lengths)
        self.prefixes = tuple(prefixes or ((0, 0),) * len(self.lengths))
        self.has_branches = any(number for _, number in self.prefixes)
        self.pictures = pictures if pictures is not None and bool(pictures.any()) else None
        self.masks: dict[tuple[int, int | None, torch.device], Tensor | None] = {}
        self._placed: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def key_lengths(self) -> tuple[int, ...]:
        """Of each segment with the prompt before it."""
        pairs = zip(self.prefixes, self.lengths, strict=True)
        return tuple(number + length for (_, number), length in pairs)

    def cu_seqlens(self, device: torch.device) -> Tensor:
        """Where segments start and where the last ends, int32, [S + 1]."""
        return self._on(device)[0]

    def cu_keys(self, device: torch.device) -> Tensor:
        """The same of their keys, once each segment's prompt stands before it."""
        return self._on(device)[1]

    def key_rows(self, device: torch.device) -> Tensor:
        """The packed rows of those keys."""
        return self._on(device)[2]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        if device not in self._placed:
            ends = _ends(self.lengths)
            made = (ends, _ends(self.key_lengths), _key_rows(self, ends.tolist()))
            a, b, c = (x.to(device) for x in made)
            self._placed[device] = a, b, c
        return self._placed[device]

    def key(self) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """What a layout depends on."""
        return self.lengths, self.prefixes


def _ends(lengths: Sequence[int]) -> Tensor:
    return torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32)


def _key_rows(segments: Segments, starts: Sequence[int]) -> Tensor:
    """For each segment the packed rows of its prompt and of its own tokens."""
    found = []
    for at, length, (start, number) in zip(
        starts, segments.lengths, segments.prefixes, strict=False
    ):
        found += [torch.arange(start, start + number), torch.arange(at, at + length)]
    return torch.cat(found)


# ---- side by side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """Packed rows as a batch: ``rows`` are those read, ``slots`` where in the flattened ``num x length`` they stand.
    ``full`` is set if there is no filling, ``repeats`` if a row is read more than once."""

    num: int
    length: int
    rows: Tensor
    slots: Tensor
    full: bool
    repeats: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Segments laid side by side: their queries, and their keys where a prompt of ``prefix`` tokens stands before each."""

    queries: Side
    keys: Side
    prefix: int


def groups(segments: Segments, allowed: float, device: torch.device) -> tuple[Group, ...]:
    """Segments sorted by prompt and length and cut into batches with at most ``allowed`` filling."""
    return _groups(*segments.key(), allowed, device)


@lru_cache(maxsize=256)
def _groups(
    lengths: tuple[int, ...],
    prefixes: tuple[tuple[int, int], ...],
    allowed: float,
    device: torch.device,
) -> tuple[Group, ...]:
    segments = Segments(lengths, prefixes)
    batches: list[list[int]] = []
    there = (i for i in range(len(lengths)) if lengths[i])
    for i in sorted(there, key=lambda i: (prefixes[i][1], -lengths[i])):
        if batches and _fits(batches[-1], segments, i, allowed):
            batches[-1].append(i)
        else:
            batches.append([i])
    starts = _ends(lengths).tolist()
    return tuple(_group(members, segments, starts, device) for members in batches)


def _fits(members: list[int], segments: Segments, new: int, allowed: float) -> bool:
    first, lengths = members[0], segments.lengths
    if segments.prefixes[first][1] != segments.prefixes[new][1]:
        return False
    real = sum(lengths[i] for i in members) + lengths[new]
    return real >= (1 - allowed) * lengths[first] * (len(members) + 1)


def _group(
    members: list[int], segments: Segments, starts: list[int], device: torch.device
) -> Group:
    own = [torch.arange(starts[i], starts[i] + segments.lengths[i]) for i in members]
    queries = _side(own, device, repeats=False)
    prefix = segments.prefixes[members[0]][1]
    if not prefix:
        return Group(queries, queries, 0)
    before = [torch.arange(prefix) + segments.prefixes[i][0] for i in members]
    whole = [torch.cat(pair) for pair in zip(before, own, strict=True)]
    return Group(queries, _side(whole, device, repeats=True), prefix)


def _side(rows: list[Tensor], device: torch.device, repeats: bool) -> Side:
    longest = max(len(one) for one in rows)
    slots = torch.cat([torch.arange(len(one)) + k * longest for k, one in enumerate(rows)])
    read = torch.cat(rows)
    full = len(read) == len(rows) * longest
    return Side(len(rows), longest, read.to(device), slots.to(device), full, repeats)


def laid(x_T: Tensor, side: Side) -> Tensor:
    """A number of each packed token as a batch ``[num, length]``, 0 for filling."""
    out = x_T.new_zeros(side.num * side.length)
    out[side.slots] = x_T[side.rows]
    return out.view(side.num, side.length)


def _summed(grad: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    """Gradients of rows that were read several times, added in fp32: in bf16 the last of many would be rounded away."""
    out = grad.new_zeros(num_rows, grad.shape[1], dtype=torch.float32)
    return out.index_add_(0, rows, grad.float()).to(grad.dtype)


class _Read(torch.autograd.Function):
    """Packed rows, some of them several times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.num_rows = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _summed(grads[0], ctx.saved_tensors[0], ctx.num_rows), None


class _Spread(torch.autograd.Function):
    """Packed rows to their slots in a batch, zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: Side) -> Tensor:
        ctx.side, ctx.num_rows = side, len(x)
        taken = x.index_select(0, side.rows)
        if side.full:
            return taken
        return x.new_zeros(side.num * side.length, x.shape[1]).index_copy_(0, side.slots, taken)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        side = ctx.side
        taken = grads[0] if side.full else grads[0].index_select(0, side.slots)
        if side.repeats:
            return _summed(taken, side.rows, ctx.num_rows), None
        out = taken.new_zeros(ctx.num_rows, taken.shape[1])
        return out.index_copy_(0, side.rows, taken), None


class _Gather(torch.autograd.Function):
    """The slots of a batch that hold real rows, in the order of the group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: Side) -> Tensor:
        ctx.side, ctx.num_slots = side, len(x)
        return x if side.full else x.index_select(0, side.slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if ctx.side.full:
            return grads[0], None
        out = grads[0].new_zeros(ctx.num_slots, grads[0].shape[1])
        return out.index_copy_(0, ctx.side.slots, grads[0]), None


class _Return(torch.autograd.Function):
    """Rows in the order of the groups back to packed order: a permutation, so backward is its inverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return torch.empty_like(x).index_copy_(0, order, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return grads[0].index_select(0, order), None


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    out: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return out


def read(x_THD: Tensor, rows: Tensor) -> Tensor:
    """The given packed rows, in their order; one may be read several times."""
    _, heads, size = x_THD.shape
    return _apply(_Read, x_THD.reshape(len(x_THD), heads * size), rows).view(-1, heads, size)


def spread(x_THD: Tensor, side: Side) -> Tensor:
    """A batch ``[num, H, length, D]`` of packed rows."""
    _, heads, size = x_THD.shape
    flat = _apply(_Spread, x_THD.reshape(len(x_THD), heads * size), side)
    return flat.view(side.num, side.length, heads, size).transpose(1, 2)


def gather(x_BHLD: Tensor, side: Side) -> Tensor:
    """The real rows of a batch, ``[rows, H * D]``, in the order of the group."""
    _, heads, _, size = x_BHLD.shape
    return _apply(_Gather, x_BHLD.transpose(1, 2).reshape(-1, heads * size), side)


def in_packed_order(parts: Sequence[Tensor], of: Sequence[Group]) -> Tensor:
    """What was gathered of each group, as one tensor in the order of the packed sequence."""
    whole = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    return _apply(_Return, whole, torch.cat([group.queries.rows for group in of]))
