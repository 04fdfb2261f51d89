"""The checked recipe: what ``check`` makes of a resolved file and ``lower`` turns into a plan.

Alone knows where each value came from (``Provenance``); the values themselves are the schema's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from omrlang.schema import Spec
from omrlang.source import Span
from omrlang.types import Gpu, Hardware, Model, Prompt, Verifier

Layer: TypeAlias = Literal["default", "stdlib", "file", "amend", "sweep", "set"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which layer set a value, and where. ``span`` is None for a default."""

    layer: Layer
    span: Span | None


@dataclass(frozen=True, slots=True)
class Stage:
    """``settings`` maps a dotted setting path (``lr``, ``checkpoint.every``) to the layer that set it."""

    span: Span
    spec: Spec
    settings: dict[str, Provenance] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thing:
    """What stages name and the recipe or a library declares; ``settings`` as of a stage."""

    kind: str
    span: Span
    value: Model | Gpu | Hardware | Prompt | Verifier
    settings: dict[str, Provenance] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on the whole recipe, in dollars: of the middle estimate and of its 90th percentile."""

    p50_usd: float | None = None
    p90_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """``stages`` in an order in which each stands after the stages it names. ``folder`` is what paths are relative to.

    ``variant`` is the label of a sweep's choice (``distil.n=4``), empty where nothing is swept; ``because`` is why the
    recipe exists, in its author's words. ``allowed`` are the codes that it lets pass, with where it says so.
    ``things`` are those that the recipe declares or its stages name; ``settings`` says who set seed and budget.
    """

    path: Path
    folder: Path
    seed: int
    stages: tuple[Stage, ...]
    models: tuple[Model, ...] = ()
    budget: Budget | None = None
    variant: str = ""
    because: str | None = None
    allowed: dict[str, Span] = field(default_factory=dict)
    things: tuple[Thing, ...] = ()
    settings: dict[str, Provenance] = field(default_factory=dict)
