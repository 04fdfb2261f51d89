"""The run's index becomes what a plan needs of the past: which artifacts there are, and what they were made of.

Reads ``STATE/index.json`` and nothing else, tolerantly: what is missing or broken counts as not there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from omrlang.schema import Spec

INDEX = "index.json"

Entry = TypeVar("Entry", bound="Tolerant")


class Tolerant(BaseModel):
    """A part of the index: unknown fields are another version's and are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Record(Tolerant):
    """What the run left about one artifact."""

    name: str = ""
    kind: str = ""
    status: Literal["done", "partial", "failed"] = "partial"
    num_rows: int | None = None
    num_dropped: int | None = None
    by_reason: dict[str, int] = Field(default_factory=dict)
    rows_by_source: dict[str, int] = Field(default_factory=dict)
    mean_response_tokens: float | None = None
    mean_prompt_tokens: float | None = None
    spread_share: float | None = None
    seconds: float | None = None
    tokens: float | None = None
    peak_bytes: float | None = None
    num_shards: int = 0
    steps_done: int | None = None
    files_ok: bool = True


class Probe(Tolerant):
    """What a slice of a stage measured: ``tokens`` and ``seconds`` of so many ``units`` (samples; rows or steps of a
    training), its start apart. ``like`` and ``shape`` are what must be equal for its speed and its memory to carry over."""

    name: str
    like: str
    shape: str
    units: float = Field(gt=0)
    tokens: float = Field(gt=0)
    seconds: float = Field(gt=0)
    start_seconds: float = Field(ge=0)
    peak_bytes: float = Field(gt=0)


class Published(Tolerant):
    """What somebody else measured and printed, of the stage's whole machine: ``source`` says who and where. ``like`` and
    ``shape`` as of a probe."""

    name: str
    like: str
    shape: str
    source: str
    tokens_per_s: float | None = Field(default=None, gt=0)
    peak_bytes: float | None = Field(default=None, gt=0)


class Previous(Tolerant):
    """What a fingerprint was made of, so that a later plan can say what moved. ``pins`` has the revision of each thing that
    was read from outside."""

    spec: Any = None
    parents: dict[str, str] = Field(default_factory=dict)
    revision: str | None = None
    pins: dict[str, str] = Field(default_factory=dict)


class Index(Tolerant):
    stages: dict[str, Record] = Field(default_factory=dict)
    names: dict[str, str] = Field(default_factory=dict)
    rates: dict[str, float] = Field(default_factory=dict)
    previous: dict[str, Previous] = Field(default_factory=dict)
    probes: dict[str, Probe] = Field(default_factory=dict)
    published: dict[str, Published] = Field(default_factory=dict)
    problem: str | None = Field(default=None, exclude=True)

    def last(self, recipe: Path, name: str) -> str | None:
        """The fingerprint that the stage of this name had when this recipe was last run."""
        return self.names.get(f"{recipe.resolve()}::{name}")

    def before(self, recipe: Path) -> dict[str, str]:
        """The stages that this recipe had when it was last run, by name, with their fingerprints."""
        start = f"{recipe.resolve()}::"
        return {
            key[len(start) :]: mark for key, mark in self.names.items() if key.startswith(start)
        }


def read_index(state: Path) -> Index:
    """The index of a state folder; an empty one where there is none. Broken entries are left out, one by one."""
    try:
        data = json.loads((state / INDEX).read_bytes())
    except FileNotFoundError:
        return Index()
    except (OSError, ValueError) as error:
        return Index(
            problem=f"{state / INDEX} cannot be read ({type(error).__name__}); everything counts as not yet run"
        )
    if not isinstance(data, dict):
        return Index(problem=f"{state / INDEX} holds no index; everything counts as not yet run")
    return Index(
        stages=_entries(data.get("stages"), Record),
        previous=_entries(data.get("previous"), Previous),
        probes=_entries(data.get("probes"), Probe),
        published=_entries(data.get("published"), Published),
        names={
            key: value for key, value in _dict(data.get("names")).items() if isinstance(value, str)
        },
        rates={
            key: float(value)
            for key, value in _dict(data.get("rates")).items()
            if isinstance(value, int | float) and value > 0
        },
    )


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _entries(value: object, model: type[Entry]) -> dict[str, Entry]:
    found = {}
    for key, item in _dict(value).items():
        try:
            found[key] = model.model_validate(item)
        except ValidationError:
            continue
    return found


def old_spec(previous: Previous) -> Spec | None:
    """The specification of an earlier version, if today's schema still reads it."""
    adapter: TypeAdapter[Spec] = TypeAdapter(Spec)
    try:
        return adapter.validate_python(previous.spec)
    except ValidationError:
        return None
