"""Units of work to their results, by actors of a Ray cluster: leased, and leased again when the one that had them is lost.

A unit has parts (a request its samples). What an actor has finished is kept whatever becomes of it; only the parts that
are still out go back and to another. A result counts once: when the lease that it belongs to waits for that part.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from omr_runtime.cluster.connect import connect, shown
from omr_runtime.cluster.hand import Exchanged, Failure, Greeting, Hand, Opened
from omr_runtime.cluster.orders import File, Order
from omr_runtime.engines.protocol import EngineDied
from omr_runtime.errors import RunError
from omrlang.types.models import Ray

PIECE_BYTES = 8 * 2**20
LOST_S = 180.0
"""A worker answers every call within a second or two; one that does not for so long is given up."""

REPLACED = 3
"""So many workers are hired anew for each one that the stage began with."""

W = TypeVar("W")
Phase: TypeAlias = Literal["placing", "opening", "working"]


@dataclass(frozen=True, slots=True)
class Need:
    """What one worker asks of a node."""

    gpus: int = 0
    cpus: int = 1

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        return f"{self.cpus} CPU{'s' * (self.cpus != 1)}{gpus}"


@dataclass(frozen=True, slots=True)
class Craft(Generic[W]):
    """What workers are to be, and what the driver must know of their units: parts, the unit with some of its parts alone,
    and image files. ``capacity`` is how many parts a worker may hold, enough that it never waits for the driver."""

    order: Order
    need: Need
    capacity: int
    parts: Callable[[W], Iterable[int]]
    narrowed: Callable[[W, frozenset[int]], W]
    images: Callable[[W], list[File]]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(slots=True, eq=False)
class _Member:
    """One actor: the call that it is answering, what it has of whom, and since when."""

    handle: Any
    phase: Phase = "placing"
    call: Any = None
    since: float = field(default_factory=time.monotonic)
    host: str = "a node"
    sees: bool = True
    steps: Iterator[Any] = field(default_factory=lambda: iter(()))
    leases: dict[int, set[int]] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)

    @property
    def num_parts(self) -> int:
        return sum(map(len, self.leases.values()))


class Crew(Generic[W]):
    """Workers of one stage. It stands when the first of them is open; the others join as the cluster has room for them."""

    def __init__(self, cluster: Ray, craft: Craft[W], state: Path, engines: int | None) -> None:
        self.cluster, self.craft = cluster, craft
        self._ray = connect(cluster)
        self._marker = state / "work" / f"cluster-{uuid.uuid4().hex}"
        self._members: list[_Member] = []
        self._units: dict[int, W] = {}
        self._back: deque[W] = deque()
        self._numbers = itertools.count()
        self._room_since = time.monotonic()
        self._last_failure = "no reason given"
        self.opened: Opened | None = None
        self._marker.parent.mkdir(parents=True, exist_ok=True)
        self._marker.write_text(self._marker.name)
        seats = engines or self._seats()
        self._spare = REPLACED * seats
        try:
            for _ in range(seats):
                self._hire()
            while self.opened is None:
                for _ in self._hear():
                    raise AssertionError("nothing is leased yet")
        except BaseException:
            self.close()
            raise

    def work(self, units: Iterable[W]) -> Iterator[tuple[W, int, Any]]:
        """Each part of each unit once, as it is finished. EngineDied when no worker is left."""
        source = iter(units)
        while True:
            self._give(source)
            if not any(member.leases for member in self._members) and not self._back:
                return
            yield from self._hear()

    def close(self) -> None:
        """Let go of all workers."""
        for member in self._members:
            self._dismiss(member)
        self._members.clear()
        self._marker.unlink(missing_ok=True)

    # ---- hiring

    def _seats(self) -> int:
        """As many workers as all nodes have room for, one where they have none yet."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        need = self.craft.need
        return max(1, sum(int(node.get("CPU", 0) // need.cpus) for node in nodes))

    def _hire(self) -> None:
        need = self.craft.need
        actor = self._ray.remote(Hand).options(
            num_cpus=need.cpus, num_gpus=need.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        member = _Member(actor.remote())
        member.call = member.handle.greet.remote(str(self._marker), self._marker.name)
        self._members.append(member)

    def _dismiss(self, member: _Member) -> None:
        with contextlib.suppress(Exception):  # it may be gone, and the cluster with it
            self._ray.kill(member.handle)

    def _lose(self, member: _Member, why: str, replace: bool) -> None:
        """Give what it had out to others; hire another in its place."""
        self._members.remove(member)
        self._dismiss(member)
        for number, parts in member.leases.items():
            self._back.append(self.craft.narrowed(self._units.pop(number), frozenset(parts)))
        self._last_failure = why
        _say(f"a worker on {member.host} is lost ({why}); {member.num_parts:,} parts go to others")
        if replace and self._spare > 0:
            self._spare -= 1
            self._room_since = time.monotonic()
            self._hire()
        if not self._members:
            raise EngineDied(f"no worker on {shown(self.cluster)} is left; the last one: {why}")

    # ---- leasing

    def _give(self, source: Iterator[W]) -> None:
        """Fill up all workers in turn, one unit each, so that what is little is shared; call those that have something."""
        idle = [m for m in self._members if m.phase == "working" and m.call is None]
        given: dict[int, list[tuple[int, W]]] = {id(member): [] for member in idle}
        open_hands = list(idle)
        while open_hands:
            for member in list(open_hands):
                unit = self._next_unit(source) if member.num_parts < self.craft.capacity else None
                if unit is None:
                    open_hands.remove(member)
                else:
                    given[id(member)].append(self._lease(member, unit))
        for member in idle:
            if member.leases:
                units = given[id(member)]
                self._call(member, "exchange", units, self._images(member, units))

    def _next_unit(self, source: Iterator[W]) -> W | None:
        return self._back.popleft() if self._back else next(source, None)

    def _lease(self, member: _Member, unit: W) -> tuple[int, W]:
        number = next(self._numbers)
        self._units[number] = unit
        member.leases[number] = set(self.craft.parts(unit))
        return number, unit

    def _images(self, member: _Member, units: list[tuple[int, W]]) -> dict[str, bytes]:
        if member.sees:
            return {}
        files = {name: path for _, unit in units for name, path in self.craft.images(unit)}
        new = {name: path for name, path in files.items() if name not in member.images}
        member.images.update(new)
        return {name: path.read_bytes() for name, path in new.items() if path.is_file()}

    def _call(self, member: _Member, method: str, *args: Any) -> None:
        member.call = getattr(member.handle, method).remote(*args)
        member.since = time.monotonic()

    # ---- hearing

    def _hear(self) -> Iterator[tuple[W, int, Any]]:
        """What one or more workers have to say; patience with those that are silent."""
        calls = {member.call: member for member in self._members if member.call is not None}
        ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=1.0) if calls else ([], [])
        for call in ready:
            member = calls[call]
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                self._lose(member, _first_line(error), replace=True)
                continue
            member.call = None
            yield from self._heard(member, answer)
        self._check_patience()

    def _heard(self, member: _Member, answer: Any) -> Iterator[tuple[W, int, Any]]:
        match answer:
            case Greeting():
                self._greeted(member, answer)
            case Failure():
                self._failed(member, answer)
            case Opened():
                member.phase, self.opened = "working", self.opened or answer
                _say(f"a worker on {member.host} is ready: {answer.name} {answer.version}")
            case Exchanged(results=results, failure=failure):
                yield from self._counted(member, results)
                if failure is not None:
                    self._failed(member, failure)
            case _:
                self._step(member)

    def _greeted(self, member: _Member, greeting: Greeting) -> None:
        if greeting.version != version("omrlang"):
            raise RunError(
                f"{greeting.host} of {shown(self.cluster)} has omrlang {greeting.version}, this machine "
                f"{version('omrlang')}; they must be the same"
            )
        member.host, member.sees, member.phase = greeting.host, greeting.sees, "opening"
        member.steps = self._steps(member)
        self._step(member)

    def _steps(self, member: _Member) -> Iterator[tuple[Any, ...]]:
        """The calls that make a worker ready: its files, where it does not see them, then the order."""
        if not member.sees:
            for name, path in self.craft.order.parcel():
                for is_first, data in _pieces(path):
                    yield "lay", name, data, is_first
        yield "open", self.craft.order, dict(self.craft.environment), member.sees

    def _step(self, member: _Member) -> None:
        self._call(member, *next(member.steps))

    def _failed(self, member: _Member, failure: Failure) -> None:
        if failure.is_final:
            raise RunError(failure.message)
        self._lose(member, failure.message, replace=False)

    def _counted(
        self, member: _Member, results: Iterable[tuple[int, int, Any]]
    ) -> Iterator[tuple[W, int, Any]]:
        for number, part, result in results:
            parts = member.leases.get(number, set())
            if part not in parts:
                continue
            unit = self._units[number]
            parts.remove(part)
            if not parts:
                del member.leases[number], self._units[number]
            yield unit, part, result

    def _check_patience(self) -> None:
        now = time.monotonic()
        if any(member.phase != "placing" for member in self._members):
            self._room_since = now
        elif now - self._room_since > self.cluster.wait:
            raise self._no_room()
        for member in list(self._members):
            if member.phase == "working" and member.call and now - member.since > LOST_S:
                self._lose(member, f"it did not answer for {LOST_S:g} s", replace=True)

    def _no_room(self) -> RunError:
        """Why nobody could be hired, with what is free. What was finished before is kept."""
        whole, free = self._ray.cluster_resources(), self._ray.available_resources()
        counts = ", ".join(
            f"{free.get(kind, 0):g} of {whole.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU")
        )
        message = (
            f"{shown(self.cluster)} has no room for a worker after {self.cluster.wait:g} s: one needs "
            f"{self.craft.need} on one node; free now: {counts}"
        )
        return EngineDied(message) if self.opened else RunError(message)


def _pieces(path: Path) -> Iterator[tuple[bool, bytes]]:
    with open(path, "rb") as file:
        is_first = True
        while (data := file.read(PIECE_BYTES)) or is_first:
            yield is_first, data
            is_first = False


def _first_line(error: BaseException) -> str:
    """What an actor's end is told by; a node without this package says so in its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = [line for line in lines if line.startswith("ModuleNotFoundError")]
    return (missing or lines or [type(error).__name__])[0]


def _say(text: str) -> None:
    """A line for the stage's log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def given_environment(names: Iterable[str]) -> dict[str, str]:
    """The variables of these names that are set here."""
    return {name: os.environ[name] for name in names if name in os.environ}
