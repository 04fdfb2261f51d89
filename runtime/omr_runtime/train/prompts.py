"""Rows and settings to the stream of prompts that a run asks, epoch after epoch, cut by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from omr_runtime.train.batching import order_key
from omrlang.schema import Rl
from omrlang.settle import num_devices, prompts_asked
from omrlang.types import Amount, Descending


@dataclass(frozen=True, slots=True)
class Member:
    """A row of a step, by position; ``repeat`` counts how often the step has asked it before."""

    row: int
    repeat: int = 0


@dataclass(slots=True)
class Prompts:
    """The rows that fit, in the order in which they are asked: a function of rows, lengths and settings alone, so that
    a resumed run goes on. ``places`` is what ``order`` gives for each row. ``length`` is None where steps are counted
    and epochs follow each other for as long as it takes."""

    ids: Sequence[str]
    fitting: Sequence[int]
    too_long: Sequence[int]
    spec: Rl
    places: Sequence[float | None] | None = None
    _orders: dict[int, list[int]] = field(default_factory=dict)

    @property
    def length(self) -> int | None:
        """Prompts of the whole run."""
        if self.spec.epochs is None:
            return None
        whole, part = divmod(self.spec.epochs, 1)
        return int(whole) * len(self.fitting) + round(part * len(self.fitting))

    @property
    def num_steps(self) -> int:
        """Steps of the whole run; the last of a run counted in epochs may be smaller."""
        if not self.fitting:
            return 0
        if self.length is None:
            return self.spec.steps or 0
        return -(-self.length // round(prompts_asked(self.spec)))

    def take(self, first: int, position: int, count: int) -> tuple[Member, ...]:
        """``count`` prompts from ``position`` of the stream on, of a step that began at ``first``; fewer at the end.

        Where one epoch ends and the next begins a step may ask the same row again: then it draws other rollouts.
        """
        end = position + count if self.length is None else min(position + count, self.length)
        asked: Counter[int] = Counter()
        members = []
        for place in range(first, end):
            row = self._row(place)
            members.append(Member(row, asked[row]))
            asked[row] += 1
        return tuple(members[position - first :])

    def _row(self, place: int) -> int:
        epoch, within = divmod(place, len(self.fitting))
        if epoch not in self._orders:
            before = {n: order for n, order in self._orders.items() if n == epoch - 1}
            self._orders = {**before, epoch: self._order(epoch)}
        return self._orders[epoch][within]

    def _order(self, epoch: int) -> list[int]:
        """By sha256(seed, epoch, id); or in every epoch by ``places``, equal ones by sha256(seed, id)."""
        return sorted(self.fitting, key=lambda i: self._key(i, epoch))

    def _key(self, i: int, epoch: int) -> tuple[bool, float, bytes]:
        seed, id = self.spec.seed, self.ids[i]
        if self.places is None:
            return False, 0.0, order_key(seed, f"prompts {epoch}", id)
        place = self.places[i]
        down = isinstance(self.spec.order, Descending)
        value = 0.0 if place is None else -place if down else place
        return place is None, value, order_key(seed, "prompts", id)


def plan_prompts(
    ids: Sequence[str],
    lengths: Sequence[int],
    spec: Rl,
    places: Sequence[float | None] | None = None,
) -> Prompts:
    """The stream over the rows whose prompts are no longer than ``max_prompt``; ``lengths`` in tokens."""
    fitting = [i for i in range(len(ids)) if lengths[i] <= spec.max_prompt]
    return Prompts(ids, fitting, sorted(set(range(len(ids))) - set(fitting)), spec, places)


def prompts_of_step(spec: Rl) -> int:
    """Prompts of one rollout step, over all processes."""
    return _whole(spec.batch, spec)


def prompts_of_update(spec: Rl) -> int:
    """Prompts of one optimiser step, over all processes."""
    return _whole(spec.minibatch or spec.batch, spec)


def prompts_beyond(spec: Rl) -> int:
    """Prompts that are under way besides those of a step, over all processes."""
    return 0 if spec.oversample is None else _whole(spec.oversample, spec)


def _whole(amount: Amount, spec: Rl) -> int:
    return round(amount.value) * (num_devices(spec) if amount.unit.endswith("/ gpu") else 1)
