"""What a training process and its engine's process tell each other, over a pair of sockets that nobody else has.

The engine takes what it is told in order. It asks for prompts as it can use them (``Wants``), so that the pictures of a batch
never stand in its memory together; the one thing that overtakes is ``Leave``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import dtype

from omr_runtime.engines.decode import Ask, Draw
from omr_runtime.engines.roller import Roller

# ---- to the engine -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """The first message: what makes the engine, a function that the other process can import with its arguments."""

    opener: Callable[[], Roller]


@dataclass(frozen=True, slots=True)
class Roll:
    """Draw, as prompts come. Answered by ``Rolled``."""

    draw: Draw


@dataclass(frozen=True, slots=True)
class Next:
    """The next prompt; None after the last."""

    ask: Ask | None


@dataclass(frozen=True, slots=True)
class Leave:
    """Nobody wants the rest of what is drawn."""


@dataclass(frozen=True, slots=True)
class Push:
    """New weights begin. Answered by ``Pushed``."""


@dataclass(frozen=True, slots=True)
class Piece:
    """``size`` bytes at ``place`` of a half of the shared memory: the next ones of a tensor of that name."""

    name: str
    dtype: dtype
    shape: tuple[int, ...]
    place: int
    size: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """A half of the shared memory is full of these; answered by ``Emptied``. Without any the weights are complete."""

    half: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """End."""


# ---- from the engine ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Wants:
    """So many more prompts."""

    count: int


@dataclass(frozen=True, slots=True)
class Rolled:
    """All that was asked for is drawn, or left."""


@dataclass(frozen=True, slots=True)
class Emptied:
    """The oldest full half can be filled again."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The new weights are in use."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Why the engine ends; ``is_fault`` where it failed, and not the request of its user."""

    message: str
    is_fault: bool = True
