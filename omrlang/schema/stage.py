"""What every stage kind's declaration shares. A stage with its clauses and settings filled is one frozen value.

A subclass of ``StageSpec`` per kind is the only declaration of that kind's settings: the checker, the JSON Schema,
the fingerprint (through each setting's class), the documentation and the runtime all read it.
Adding a setting means adding a field there.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from omrlang.types import Assume, Expect, Frozen, Setting, construct


class StageSpec(Frozen):
    """``version`` is raised when the meaning of a kind changes, so that what an older version made is redone."""

    version: ClassVar[int] = 1

    name: str
    seed: int = Field(description="the recipe's seed; randomness is hash(seed, purpose, row id)")
    unpublished: tuple[str, ...] = Field(
        default=(), description="settings of which the recipe says that nobody published a value"
    )
    assume: Annotated[
        Assume,
        Setting(cls="meta", doc="what a plan cannot know and the recipe declares; changes no row"),
    ] = construct(Assume)
    expect: Annotated[
        Expect | None,
        Setting(
            cls="meta",
            doc="what must come out, such as `rows in 1_000 .. 1_200 and kept > 40%`; a plan warns, a run is stopped",
        ),
    ] = None
