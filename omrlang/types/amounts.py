"""Numbers with a unit, ranges, and how much of a row set a mix takes."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.setting import Frozen, Setting


class Amount(Frozen):
    """A number with its unit as written: ``1 pack / gpu`` is ``Amount(value=1, unit="packs / gpu")`` (plural form)."""

    value: float
    unit: str


class All(Frozen):
    kind: Literal["all"] = "all"


class Count(Frozen):
    kind: Literal["count"] = "count"
    n: int


class Share(Frozen):
    """A share of the mix's ``total``; ``fraction`` in 0..1."""

    kind: Literal["share"] = "share"
    fraction: float


class UpTo(Frozen):
    kind: Literal["up_to"] = "up_to"
    n: Annotated[int, Setting("at most so many", cls="rows", unit="rows", ge=1)]


class Times(Frozen):
    kind: Literal["times"] = "times"
    k: Annotated[int, Setting("so many copies of each row", cls="rows", ge=1)]


MixAmount: TypeAlias = Annotated[All | Count | Share | UpTo | Times, Field(discriminator="kind")]


class MixPart(Frozen):
    rows: str
    amount: MixAmount


class Range(Frozen):
    """``mid`` is what is likely, where it is not halfway."""

    lo: float
    hi: float
    mid: float | None = None

    @property
    def middle(self) -> float:
        return (self.lo + self.hi) / 2 if self.mid is None else self.mid


class Assume(Frozen):
    """What a plan cannot know and the recipe declares. ``keep`` a fraction, ``response`` and ``prompt`` tokens a row,
    ``image`` pixels an image, ``rows`` of a source whose size is published as a rounded figure, ``spread`` the share of prompts whose rollouts
    do not all have the same reward. Changes no row."""

    keep: Annotated[Range | None, Setting("kept share", ge=0, le=1)] = None
    response: Annotated[Range | None, Setting("of a row", unit="tokens", ge=0)] = None
    prompt: Annotated[Range | None, Setting("of a row", unit="tokens", ge=0)] = None
    image: Annotated[Range | None, Setting("of an image", unit="pixels", ge=0)] = None
    rows: Annotated[Range | None, Setting("of a source", unit="rows", ge=0)] = None
    spread: Annotated[
        Range | None, Setting("share of prompts whose rollouts differ in reward", ge=0, le=1)
    ] = None
