"""Encoded prompts in, sampled tokens out, by an engine whose weights follow a trainer's: what rollouts are drawn with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from omr_runtime.engines.decode import Ask, Draw, OnSampled, Until
from omr_runtime.engines.protocol import Weights


class Roller(Protocol):
    """In this process, or in one of its own that is spoken to from here."""

    name: str
    version: str

    def roll(
        self, asks: Iterable[Ask], draw: Draw, done: OnSampled, until: Until | None = None
    ) -> None: ...

    def update_weights(self, weights: Weights) -> None: ...

    def close(self) -> None: ...
