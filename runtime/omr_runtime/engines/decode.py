"""Encoded prompts in, sampled tokens out, with a transformers model: one loop that keeps a batch of slots full.

A prompt is read once for all its samples. A sample that ends leaves the batch at once and the next takes its slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor

from omr_runtime.engines.sampling import next_tokens, uniform_rows
from omr_runtime.engines.slots import PromptStates, Slots, slot_attending
from omr_runtime.models.families import Inputs, Layout, joined


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt, tokenised, images expanded, and the seed of each sample that is wanted of it.

    ``inputs`` are the model's arguments for its pictures. ``text`` is the prompt with one placeholder an image and ``images`` are the pictures themselves (PIL), for an engine
    that expands and prepares them on its own, with what its image processor is ``told``. ``begun`` are tokens of the response that
    were drawn before, of an ask with one seed: they are read after the prompt, and what is drawn follows them.
    """

    input_ids: list[int]
    seeds: tuple[int, ...]
    inputs: Inputs | None = None
    text: str | None = None
    images: tuple[Any, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    begun: tuple[int, ...] = ()

    @property
    def read_ids(self) -> list[int]:
        """All that is read before the first token is drawn."""
        return [*self.input_ids, *self.begun] if self.begun else self.input_ids


@dataclass(frozen=True, slots=True)
class Draw:
    """How tokens are drawn; ``stops`` end a sample and belong to it. With ``choices`` a sample is one of these token
    sequences, each of which ends with a stop (``choice_texts`` are the same as text). ``never`` are tokens that stand for something else than text: an image
    placeholder in a response would be taken for an image when the response is read again."""

    temperature: float
    max_tokens: int
    stops: frozenset[int]
    top_p: float = 1.0
    top_k: int | None = None
    choices: tuple[tuple[int, ...], ...] | None = None
    choice_texts: tuple[str, ...] | None = None
    never: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sample number ``sample`` of ask number ``ask``, without what was ``begun`` before; ``stopped`` tells a stop from the length
    limit."""

    ask: int
    sample: int
    token_ids: list[int]
    logprobs: list[float]
    stopped: bool


OnSampled: TypeAlias = Callable[[Sampled], None]


@dataclass(frozen=True, slots=True)
class Until:
    """Drawing ends early, between two tokens, once ``enough`` says so; ``left`` is then told what each sample that is under
    way has so far. A sample with nothing yet is not told."""

    enough: Callable[[], bool]
    left: OnSampled


Place: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Prefilled:
    """Prompts that were read: their keys and values, the logits after each, and where their positions go on."""

    states: PromptStates
    lengths: Tensor
    positions: Tensor
    logits_BV: Tensor


@dataclass(frozen=True, slots=True)
class _Ready:
    """A sample that waits for a slot: row ``row`` of a block, to be drawn with ``seed`` after the tokens ``begun``."""

    block: _Prefilled
    row: int
    place: Place
    seed: int
    begun: tuple[int, ...]


def decode(
    model: Any,
    asks: Iterable[Ask],
    draw: Draw,
    batch: int,
    done: OnSampled,
    until: Until | None = None,
) -> None:
    """Draw every sample of every ask, at most ``batch`` at once; ``done`` is called for each as soon as it ends.

    ``asks`` are taken a window at a time, so that the images of a large set never stand in memory together.
    """
    decoder = model.get_decoder()
    # Not inference mode: what a training model caches here (masks, orders of segments) is used in its backward pass.
    with torch.no_grad(), slot_attending(model):
        _Loop(model, decoder, asks, draw, batch, done).run(until)


class _Loop:
    """The state of one call of ``decode``. Row i of every table here belongs to slot i."""

    def __init__(
        self, model: Any, decoder: Any, asks: Iterable[Ask], draw: Draw, batch: int, done: OnSampled
    ) -> None:
        self.model, self.decoder, self.draw, self.done = model, decoder, draw, done
        self.source = enumerate(asks)
        self.window: deque[tuple[int, Ask]] = deque()
        self.ready: deque[_Ready] = deque()
        self._look_ahead(batch)
        self.head = model.get_output_embeddings()
        self.layout = Layout.of(model.config)
        self.device = next(model.parameters()).device
        self.capacity = max(1, min(batch, sum(len(ask.seeds) for _, ask in self.window)))
        self.slots = Slots(self.capacity)
        self.places: list[Place] = [(-1, -1)] * self.capacity
        self.never = torch.tensor(draw.never, device=self.device) if draw.never else None
        self.stops = torch.tensor(sorted(draw.stops) or [-1])
        self.u = torch.zeros(self.capacity, draw.max_tokens, dtype=torch.float64)
        self.tokens = torch.zeros(self.capacity, draw.max_tokens, dtype=torch.long)
        self.logprobs = torch.zeros(self.capacity, draw.max_tokens)
        self.counts = torch.zeros(self.capacity, dtype=torch.long)
        self.begun = torch.zeros(self.capacity, dtype=torch.long)
        self.positions = torch.zeros(self.capacity, dtype=torch.long)
        self.active = 0

    def run(self, until: Until | None) -> None:
        while self.active or self.ready or self.window:
            if until is not None and until.enough():
                for slot in range(self.active):
                    until.left(self._sampled(slot, False))
                return
            if self._worth_filling():
                self._fill()
            if self.active:
                self._step()

    def _worth_filling(self) -> bool:
        free = self.capacity - self.active
        waiting = bool(self.ready or self.window)
        return waiting and (self.active == 0 or free >= max(1, self.capacity // 8))

    def _look_ahead(self, batch: int) -> None:
        """Take the next asks, enough for two batches; the longest prompts of a window are read first."""
        wanted = 2 * batch
        asks: list[tuple[int, Ask]] = []
        while wanted > 0 and (taken := next(self.source, None)) is not None:
            asks.append(taken)
            wanted -= len(taken[1].seeds)
        self.window.extend(sorted(asks, key=lambda entry: -len(entry[1].read_ids)))

    def _fill(self) -> None:
        """Give the free slots to samples that wait, reading more prompts where none are ready."""
        while self.active < self.capacity and (self.ready or self.window):
            if not self.ready:
                self._read_prompts()
            block, free = self.ready[0].block, self.capacity - self.active
            mine = [entry for entry in islice(self.ready, free) if entry.block is block]
            for _ in mine:
                self.ready.popleft()
            self._admit(block, mine)

    def _read_prompts(self, max_tokens: int = 8192) -> None:
        """Prefill the next prompts: as many as the free slots can use, within a budget of padded tokens."""
        free = self.capacity - self.active
        chosen: list[tuple[int, Ask]] = []
        longest = len(self.window[0][1].read_ids)
        while self.window and (
            not chosen or (free > 0 and (len(chosen) + 1) * longest <= max_tokens)
        ):
            chosen.append(self.window.popleft())
            free -= len(chosen[-1][1].seeds)
        block = prefill(
            self.model, self.decoder, self.head, [ask for _, ask in chosen], self.device
        )
        for row, (index, ask) in enumerate(chosen):
            self.ready.extend(
                _Ready(block, row, (index, n), seed, ask.begun) for n, seed in enumerate(ask.seeds)
            )
        if not self.window:
            self._look_ahead(self.capacity)

    def _admit(self, block: _Prefilled, entries: list[_Ready]) -> None:
        """New samples take the next slots and draw their first token from the prompt's last logits."""
        slots = torch.arange(self.active, self.active + len(entries))
        at = torch.tensor([entry.row for entry in entries])
        self.slots.admit(slots, block.states, at, block.lengths[at])
        self.u[slots] = uniform_rows([entry.seed for entry in entries], self.draw.max_tokens)
        self.counts[slots] = self.begun[slots] = torch.tensor([len(e.begun) for e in entries])
        self.positions[slots] = block.positions[at]
        for slot, entry in zip(slots.tolist(), entries, strict=True):
            self.places[slot] = entry.place
            self.tokens[slot, : len(entry.begun)] = torch.tensor(entry.begun, dtype=torch.long)
        self.active += len(entries)
        self._draw(slots, block.logits_BV[at.to(self.device)])

    def _step(self) -> None:
        """One token for every active slot."""
        rows = torch.arange(self.active)
        mask = self.slots.begin(self.active)
        last = self.tokens[rows, self.counts[: self.active] - 1]
        hidden = self.decoder(
            input_ids=last[:, None].to(self.device),
            position_ids=self._position_ids(),
            attention_mask=mask,
            past_key_values=self.slots,
            use_cache=True,
        ).last_hidden_state
        self.slots.end()
        self.positions[: self.active] += 1
        self._draw(rows, self.head(hidden[:, -1]))

    def _position_ids(self) -> Tensor:
        at = self.positions[: self.active, None].to(self.device)
        return at.expand(3, -1, 1) if _has_rows(self.layout) else at

    def _draw(self, slots: Tensor, logits_BV: Tensor) -> None:
        """Draw a token for each of ``slots``; samples that end with it are handed over and leave."""
        at, draw = self.counts[slots], self.draw
        if draw.choices is not None:
            logits_BV = self._only_choices(slots.tolist(), logits_BV, draw.choices)
        tokens, logprobs = next_tokens(
            logits_BV, self.u[slots, at], draw.temperature, draw.top_p, draw.top_k, self.never
        )
        tokens, logprobs = tokens.cpu(), logprobs.cpu()
        self.tokens[slots, at] = tokens
        self.logprobs[slots, at] = logprobs
        self.counts[slots] = at + 1
        stopped = torch.isin(tokens, self.stops)
        ended = stopped | (at + 1 >= draw.max_tokens)
        if bool(ended.any()):
            self._release(slots[ended].tolist(), stopped[ended].tolist())

    def _only_choices(
        self, slots: list[int], logits_BV: Tensor, choices: tuple[tuple[int, ...], ...]
    ) -> Tensor:
        """Logits in which only tokens that continue a choice can be drawn."""
        allowed = torch.full_like(logits_BV, float("-inf"))
        for row, slot in enumerate(slots):
            count = int(self.counts[slot])
            begun = tuple(self.tokens[slot, :count].tolist())
            following = {one[count] for one in choices if len(one) > count and one[:count] == begun}
            allowed[row, sorted(following)] = 0.0
        return logits_BV + allowed

    def _release(self, slots: list[int], stopped: list[bool]) -> None:
        for slot, stop in zip(slots, stopped, strict=True):
            self.done(self._sampled(slot, stop))
        self._close_gaps(set(slots))

    def _sampled(self, slot: int, stopped: bool) -> Sampled:
        own = slice(int(self.begun[slot]), int(self.counts[slot]))
        tokens, logprobs = self.tokens[slot, own].tolist(), self.logprobs[slot, own].tolist()
        return Sampled(*self.places[slot], tokens, logprobs, stopped)

    def _close_gaps(self, gone: set[int]) -> None:
        """Move the last active slots into the freed ones, so that the active slots are the first again."""
        left = self.active - len(gone)
        targets = sorted(slot for slot in gone if slot < left)
        sources = [slot for slot in range(left, self.active) if slot not in gone]
        self.active = left
        if not targets:
            return
        source, target = torch.tensor(sources), torch.tensor(targets)
        self.slots.move(source, target)
        for table in (self.u, self.tokens, self.logprobs, self.counts, self.begun, self.positions):
            table[target] = table[source]
        for into, out_of in zip(targets, sources, strict=True):
            self.places[into] = self.places[out_of]


def _has_rows(layout: Layout) -> bool:
    """Whether positions are rows and columns of pictures too."""
    return layout.family is not None and layout.family.positions is not None


def prefill(model: Any, decoder: Any, head: Any, asks: Sequence[Ask], device: Any) -> _Prefilled:
    """Read prompts side by side, padded at the right: a causal mask then keeps padding out of sight without more ado."""
    lengths = torch.tensor([len(ask.read_ids) for ask in asks])
    width, layout = int(lengths.max()), Layout.of(model.config)
    ids_BL = torch.zeros(len(asks), width, dtype=torch.long)
    for row, ask in enumerate(asks):
        ids_BL[row, : len(ask.read_ids)] = torch.tensor(ask.read_ids)
    states = PromptStates()
    positions, following = _positions(layout, asks, width)
    images = joined([ask.inputs for ask in asks if ask.inputs])
    reader = model.model if images else decoder
    hidden = reader(
        input_ids=ids_BL.to(device),
        attention_mask=_seen(layout, asks, width).to(device),
        position_ids=positions.to(device),
        past_key_values=states,
        use_cache=True,
        **{name: x.to(device) for name, x in (images or {}).items()},
    ).last_hidden_state
    last = hidden[torch.arange(len(asks), device=device), lengths.to(device) - 1]
    return _Prefilled(states, lengths, following, head(last))


def _seen(layout: Layout, asks: Sequence[Ask], width: int) -> Tensor:
    """What each token may see: ``[1, 1, L, L]``, or ``[B, 1, L, L]`` where those of a picture see each other."""
    before = torch.ones(width, width, dtype=torch.bool).tril_()[None, None]
    found = [layout.pictures(ask.read_ids) for ask in asks]
    if all(one is None or not one.any() for one in found):
        return before
    pictures_BL = torch.zeros(len(asks), width, dtype=torch.long)
    for row, one in enumerate(found):
        if one is not None:
            pictures_BL[row, : len(one)] = torch.from_numpy(one)
    same = (pictures_BL[:, :, None] == pictures_BL[:, None]) & (pictures_BL[:, :, None] > 0)
    return before | same[:, None]


def _positions(layout: Layout, asks: Sequence[Ask], width: int) -> tuple[Tensor, Tensor]:
    """Position ids of the prompts (``[B, L]``, or ``[3, B, L]`` where images span two axes) and of each one's next token."""
    lengths = [len(ask.read_ids) for ask in asks]
    plain = torch.arange(width).expand(len(asks), -1)
    if not _has_rows(layout):
        return plain, torch.tensor(lengths)
    positions = plain.expand(3, -1, -1).clone()
    following = torch.tensor(lengths)
    for row, ask in enumerate(asks):
        own = layout.positions(ask.read_ids, ask.inputs)
        assert own is not None, "the family has rows and columns"
        positions[:, row, : lengths[row]] = torch.from_numpy(own)
        following[row] = int(own.max()) + 1
    return positions, following


def samples(model: Any, asks: Sequence[Ask], draw: Draw, batch: int) -> list[Sampled]:
    """``decode`` with its results collected, in the order of the asks and their samples."""
    found: list[Sampled] = []
    decode(model, asks, draw, batch, found.append)
    return sorted(found, key=lambda one: (one.ask, one.sample))
