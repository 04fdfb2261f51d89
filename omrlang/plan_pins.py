"""The pins of all stages become the inputs of a plan: each thing once, with its readers and how it drifted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from omrlang.lock import Lock, Locked
from omrlang.lower import Lowered
from omrlang.pins import Pin
from omrlang.plan import Drift, PlanPin
from omrlang.state import Index


def plan_pins(
    stages: Sequence[Lowered], index: Index, recipe: Path, lock: Lock
) -> tuple[PlanPin, ...]:
    """In the order in which stages read them."""
    readers: dict[tuple[str, str], list[Lowered]] = {}
    pins: dict[tuple[str, str], Pin] = {}
    for stage in stages:
        for pin in stage.pins:
            key = pin.kind, pin.what
            pins.setdefault(key, pin)
            readers.setdefault(key, []).append(stage)
    return tuple(
        PlanPin(
            kind=pin.kind,
            what=pin.what,
            revision=pin.revision,
            num_rows=pin.num_rows,
            num_bytes=pin.num_bytes,
            stages=tuple(dict.fromkeys(stage.name for stage in readers[key])),
            drift=(
                *_since_last_run(pin, readers[key], index, recipe),
                *_since_lock(pin, lock),
            ),
            locked=_locked(pin, lock) is not None,
            problem=pin.problem,
        )
        for key, pin in pins.items()
    )


def _locked(pin: Pin, lock: Lock) -> Locked | None:
    """What the lock says of it; of a hub it was filled in already, so only its commit tells."""
    if not pin.on_a_hub:
        return lock.find(pin.kind, pin.what)
    known = (item for item in lock.pins.values() if (item.kind, item.what) == (pin.kind, pin.what))
    return next((item for item in known if item.revision == pin.revision), None)


def _since_lock(pin: Pin, lock: Lock) -> Iterator[Drift]:
    locked = _locked(pin, lock)
    if locked is not None and locked.revision != pin.revision:
        yield Drift(since="lock", before=locked.revision, after=pin.revision or "gone")


def _since_last_run(
    pin: Pin, readers: Sequence[Lowered], index: Index, recipe: Path
) -> Iterator[Drift]:
    """What the last run of this recipe read under the same name, if it is another."""
    for stage in readers:
        last = index.last(recipe, stage.name)
        previous = index.previous.get(last) if last is not None else None
        before = previous.pins.get(pin.what) if previous is not None else None
        if before is not None and before != pin.revision:
            yield Drift(since="last run", before=before, after=pin.revision or "gone")
            return
