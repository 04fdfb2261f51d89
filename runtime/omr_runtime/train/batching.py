"""Token sequences to packed batches: several samples one after another in one sequence, no padding anywhere.

Alone knows how positions restart per sample and which rows share a forward pass. Legend: T packed tokens, S samples (segments), N predicted response tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omr_runtime.models.families import Inputs, Layout, joined
from omr_runtime.train.segments import Segments

DUMMY = ""
"""The row id of a sample that only keeps ranks in step; its tokens have weight 0."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt with its response. Response tokens carry loss, prompt tokens do not.

    ``positions`` [3, L] are a vision model's temporal, height and width rows, None where tokens are counted. ``pictures``
    [L] are the images that tokens belong to, where those of one image see each other. ``images`` are the model's arguments
    for its images, in order. Samples of one ``group`` have the same prompt.
    """

    id: str
    input_ids: tuple[int, ...]
    num_prompt: int
    positions: NDArray[np.int64] | None = None
    images: Inputs | None = None
    weight: float = 1.0
    group: str | None = None
    pictures: NDArray[np.int64] | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def num_response(self) -> int:
        return len(self.input_ids) - self.num_prompt


def make_sample(
    id: str,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    layout: Layout,
    images: Inputs | None = None,
    weight: float = 1.0,
    group: str | None = None,
) -> Sample:
    """A sample with its positions; image placeholders in ``prompt_ids`` are already expanded."""
    ids = (*prompt_ids, *response_ids)
    positions, pictures = layout.positions(ids, images), layout.pictures(ids)
    return Sample(id, ids, len(prompt_ids), positions, images, weight, group, pictures)


def dummy_sample(layout: Layout) -> Sample:
    """A sample of weight 0 that touches every part of the model, the vision tower too."""
    if layout.family is None:
        return make_sample(DUMMY, [0], [0], layout, weight=0.0)
    ids, images = layout.family.dummy(layout.config)
    return make_sample(DUMMY, ids, [0], layout, images, weight=0.0)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Samples one after another as one sequence.

    ``input_ids`` [1, T]; ``position_ids`` [1, T], or [4, 1, T] where images have rows and columns: positions within the
    sample, then the three M-RoPE rows. ``predict`` [N] are the places whose next token is a response token, ``targets`` [N] those
    tokens, ``segment`` [N] the sample each belongs to, ``weight`` [N] 1, or 0 for a dummy's.
    """

    ids: tuple[str, ...]
    input_ids: Tensor
    position_ids: Tensor
    segments: Segments
    predict: Tensor
    targets: Tensor
    segment: Tensor
    weight: Tensor
    images: Inputs | None = None

    @property
    def num_samples(self) -> int:
        return len(self.ids)

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.shape[1])

    @property
    def num_weighted(self) -> int:
        """Response tokens that count."""
        return int(self.weight.sum())

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch with its tensors on ``device``."""
        images = self.images
        if images is not None:
            images = {name: x.to(device, non_blocking=True) for name, x in images.items()}
        return PackedBatch(
            self.ids,
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.segments,
            self.predict.to(device),
            self.targets.to(device),
            self.segment.to(device),
            self.weight.to(device),
            images,
        )

    def model_inputs(self) -> dict[str, Any]:
        """Keyword arguments of a transformers model.

        ``use_cache`` is off because with it transformers leaves the segment mask out and says nothing; the four
        dimensional mask of one element keeps it from building one of T x T that segment attention does not read.
        """
        inputs: dict[str, Any] = {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "attention_mask": torch.zeros(1, 1, 1, 1, device=self.input_ids.device),
            "segments": self.segments,
            "use_cache": False,
        }
        return inputs | dict(self.images or {})


@dataclass(frozen=True, slots=True)
class _Placed:
    """A sample in the sequence: its tokens from ``first`` on stand at ``at``. ``first`` is 0, or ``num_prompt`` where the
    prompt stands at ``prompt_at`` for a sample before it."""

    sample: Sample
    at: int
    first: int
    prompt_at: int

    @property
    def length(self) -> int:
        return self.sample.num_tokens - self.first

    @property
    def prefix(self) -> tuple[int, int]:
        return (self.prompt_at, self.first) if self.first else (0, 0)

    @property
    def predict(self) -> NDArray[np.int64]:
        """Where the response is predicted: its first token at the end of the prompt, wherever that stands."""
        sample = self.sample
        places = np.arange(self.at + self.length - sample.num_response, self.at + self.length) - 1
        places[:1] = self.prompt_at + sample.num_prompt - 1
        return places


def _place(samples: Sequence[Sample]) -> list[_Placed]:
    """Samples one after another; the prompt of a group stands once, before its first response."""
    placed, at = [], 0
    prompts: dict[str, int] = {}
    for sample in samples:
        shared = prompts.get(sample.group) if sample.group is not None else None
        first = 0 if shared is None else sample.num_prompt
        placed.append(_Placed(sample, at, first, at if shared is None else shared))
        if sample.group is not None:
            prompts.setdefault(sample.group, at)
        at += placed[-1].length
    return placed


def _positions(placed: Sequence[_Placed]) -> Tensor:
    text = np.concatenate([np.arange(p.first, p.sample.num_tokens) for p in placed])
    found = [p.sample.positions for p in placed]
    if found[0] is None:
        return torch.from_numpy(text)[None]
    rows = [r[:, p.first :] for r, p in zip(found, placed, strict=True) if r is not None]
    return torch.from_numpy(np.concatenate([text[None], np.concatenate(rows, axis=1)]))[:, None]


def _pictures(placed: Sequence[_Placed]) -> Tensor | None:
    """The image of each token. Numbers begin anew in each sample: no segment sees two."""
    parts = [p.sample.pictures[p.first :] for p in placed if p.sample.pictures is not None]
    return torch.from_numpy(np.concatenate(parts)) if parts else None


def pack(samples: Sequence[Sample]) -> PackedBatch:
    """Samples, in order, as one packed batch. Samples of one group share their prompt and its images: they are read once,
    and their gradient is the sum over the group."""
    placed = _place(samples)
    counts = torch.tensor([s.num_response for s in samples])
    shown = [p.sample for p in placed if not p.first]
    return PackedBatch(
        ids=tuple(s.id for s in samples),
        input_ids=torch.tensor([x for p in placed for x in p.sample.input_ids[p.first :]])[None],
        position_ids=_positions(placed),
        segments=Segments(
            [p.length for p in placed], [p.prefix for p in placed], _pictures(placed)
        ),
        predict=torch.from_numpy(np.concatenate([p.predict for p in placed])),
        targets=torch.tensor([x for s in samples for x in s.input_ids[s.num_prompt :]]),
        segment=torch.arange(len(samples)).repeat_interleave(counts),
        weight=torch.tensor([s.weight for s in samples]).repeat_interleave(counts),
        images=joined([sample.images for sample in shown if sample.images]),
    )


# ---- which samples share a sequence ----------------------------------------------------------------------------


def order_key(seed: int, purpose: str, id: str) -> bytes:
    """A place in an order that depends on nothing but seed, purpose and row."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{id}".encode()).digest()


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of ``lengths`` in bins of at most ``capacity``: longest first, each into the first bin with room."""
    bins: list[list[int]] = []
    room = np.zeros(len(lengths), dtype=np.int64)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        open_bins = room[: len(bins)] >= lengths[i]
        at = int(open_bins.argmax()) if len(bins) else 0
        if not bins or not open_bins[at]:
            at = len(bins)
            bins.append([])
            room[at] = capacity
        bins[at].append(i)
        room[at] -= lengths[i]
    return bins


def split_by_cost(
    costs: Sequence[float], sizes: Sequence[int], num_parts: int, capacity: int
) -> list[list[int]] | None:
    """Indices in ``num_parts`` parts of like total cost, none of which holds more than ``capacity``: dearest first, each to the cheapest
    part with room for its size. None where one finds no room."""
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    totals, room = np.zeros(num_parts), np.full(num_parts, capacity)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        has_room = room >= sizes[i]
        if not has_room.any():
            return None
        at = int(np.where(has_room, totals, np.inf).argmin())
        parts[at].append(i)
        totals[at] += costs[i]
        room[at] -= sizes[i]
    return parts


def micro_batches(
    lengths: Sequence[int], costs: Sequence[float], budget: int, num_ranks: int
) -> list[list[list[int]]]:
    """For each rank its micro-batches as lists of indices, each of at most ``budget`` tokens (one sample may be longer); dearest first,
    since under sharding ranks meet at each.

    Every rank gets the same number, the fewest that hold all: an empty one stands for a dummy. Among several ranks they are
    not filled one after another, but of like cost.
    """
    capacity = max(budget, max(lengths, default=0))
    bins = first_fit_decreasing(lengths, capacity)
    if num_ranks == 1:
        return [bins]
    each = -(-len(bins) // num_ranks)
    bins = split_by_cost(costs, lengths, each * num_ranks, capacity) or bins
    totals = [sum(costs[i] for i in one) for one in bins]
    parts = split_by_cost(totals, [1] * len(bins), num_ranks, each)
    assert parts is not None, "as many places as bins"
    return [[bins[k] for k in part] + [[]] * (each - len(part)) for part in parts]


def together(samples: Sequence[Sample], budget: int) -> list[list[int]]:
    """Indices of ``samples`` that are packed side by side: those of a group, as many as ``budget`` tokens hold with the
    prompt that they share; any other sample alone."""
    units: dict[object, list[list[int]]] = {}
    sizes: dict[object, int] = {}
    for i, sample in enumerate(samples):
        name: object = i if sample.group is None else sample.group
        if name not in units or sizes[name] + sample.num_response > budget:
            units.setdefault(name, []).append([])
            sizes[name] = sample.num_prompt
        units[name][-1].append(i)
        sizes[name] += sample.num_response
    return [unit for parts in units.values() for unit in parts]


def shared_tokens(samples: Sequence[Sample]) -> int:
    """Tokens of samples of one group, packed side by side."""
    return samples[0].num_prompt + sum(sample.num_response for sample in samples)


def pack_or_dummy(
    samples: Sequence[Sample], layout: Layout, every_part: bool = False
) -> PackedBatch:
    """A packed batch; a dummy where there are no samples, or (``every_part``) beside samples without an image, so that
    each rank runs the same modules of a sharded vision model."""
    dummy = dummy_sample(layout)
    if not samples:
        return pack([dummy])
    blind = layout.family is not None and all(s.images is None for s in samples)
    return pack([*samples, dummy] if every_part and blind else samples)


@dataclass(frozen=True, slots=True)
class PackPlan:
    """How rows become packs: ``lengths`` by row id, ``pack`` tokens at most, ``window`` rows looked at together."""

    ids: Sequence[str]
    lengths: Sequence[int]
    pack: int
    seed: int
    window: int = 1024
    _orders: dict[int, list[int]] = field(default_factory=dict)

    def epoch_order(self, epoch: int) -> list[int]:
        """Rows of an epoch by sha256(seed, epoch, id)."""
        if epoch not in self._orders:
            keys = [order_key(self.seed, f"epoch {epoch}", id) for id in self.ids]
            self._orders[epoch] = sorted(range(len(keys)), key=lambda i: keys[i])
        return self._orders[epoch]

    def epoch_rows(self, epoch: int, fraction: float = 1.0) -> Iterator[tuple[int, ...]]:
        """The rows of the first ``fraction`` of an epoch, one by one."""
        order = self.epoch_order(epoch)
        yield from ((i,) for i in order[: round(fraction * len(order))])

    def epoch_packs(self, epoch: int, fraction: float = 1.0) -> Iterator[tuple[int, ...]]:
        """The packs of the first ``fraction`` of an epoch. Within a window packs are shuffled, or length would set their order."""
        order = self.epoch_order(epoch)
        order = order[: round(fraction * len(order))]
        for start in range(0, len(order), self.window):
            rows = order[start : start + self.window]
            bins = first_fit_decreasing([self.lengths[i] for i in rows], self.pack)
            packs = [tuple(rows[i] for i in one) for one in bins]
            purpose = f"packs {epoch}"
            yield from sorted(packs, key=lambda p: order_key(self.seed, purpose, self.ids[p[0]]))


def steps_of(
    units: Callable[[int, float], Iterator[tuple[int, ...]]],
    batch: int,
    steps: int | None,
    epochs: float | None,
) -> list[tuple[int, ...]]:
    """Rows of each optimiser step: ``batch`` units (packs or single rows) a step, for ``steps`` or ``epochs``.

    ``units(epoch, fraction)`` gives the units of a part of an epoch. Epochs follow each other without a cut, so only
    the last step of a run counted in epochs may be smaller.
    """
    out: list[tuple[int, ...]] = []
    current: list[int] = []
    held = 0
    for unit in _stream(units, steps, epochs):
        current.extend(unit)
        held += 1
        if held == batch:
            out.append(tuple(current))
            current, held = [], 0
            if steps is not None and len(out) == steps:
                return out
    return [*out, tuple(current)] if current else out


def _stream(
    units: Callable[[int, float], Iterator[tuple[int, ...]]],
    steps: int | None,
    epochs: float | None,
) -> Iterator[tuple[int, ...]]:
    epoch = 0
    while steps is not None or (epochs is not None and epoch < epochs):
        fraction = 1.0 if steps is not None or epochs is None else min(1.0, epochs - epoch)
        empty = True
        for unit in units(epoch, fraction):
            empty = False
            yield unit
        if empty:
            return
        epoch += 1
