"""The run's index becomes what a plan needs of the past: which stages are done, and why another is not.

Reads ``STATE/index.json`` and nothing else, tolerantly: what is missing or broken counts as not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from omrlang.changes import Moved, compare
from omrlang.fingerprint import deciding_classes
from omrlang.leaves import leaves
from omrlang.lower import Lowered
from omrlang.plan import Action, Change, Reason
from omrlang.schema import Spec

INDEX = "index.json"

Entry = TypeVar("Entry", bound="Tolerant")


class Tolerant(BaseModel):
    """A part of the index: unknown fields are another version's and are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Record(Tolerant):
    """What the run left about one artifact."""

    name: str = ""
    kind: str = ""
    status: Literal["done", "partial", "failed"] = "partial"
    num_rows: int | None = None
    num_dropped: int | None = None
    rows_by_source: dict[str, int] = Field(default_factory=dict)
    mean_response_tokens: float | None = None
    mean_prompt_tokens: float | None = None
    seconds: float | None = None
    tokens: float | None = None
    num_shards: int = 0
    steps_done: int | None = None
    files_ok: bool = True


class Previous(Tolerant):
    """What a fingerprint was made of, so that a later plan can say what moved."""

    spec: Any = None
    parents: dict[str, str] = Field(default_factory=dict)
    revision: str | None = None


class Index(Tolerant):
    stages: dict[str, Record] = Field(default_factory=dict)
    names: dict[str, str] = Field(default_factory=dict)
    rates: dict[str, float] = Field(default_factory=dict)
    previous: dict[str, Previous] = Field(default_factory=dict)
    problem: str | None = Field(default=None, exclude=True)

    def last(self, recipe: Path, name: str) -> str | None:
        """The fingerprint that the stage of this name had when this recipe was last run."""
        return self.names.get(f"{recipe.resolve()}::{name}")

    def removed(self, recipe: Path, names: frozenset[str]) -> tuple[str, ...]:
        """Stages that this recipe had and has no more."""
        start = f"{recipe.resolve()}::"
        known = (key[len(start) :] for key in self.names if key.startswith(start))
        return tuple(sorted(name for name in known if name not in names))


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done for a stage and why."""

    action: Action
    reasons: tuple[Reason, ...]
    text: str
    changes: tuple[Change, ...] = ()


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


def decide(stage: Lowered, index: Index, recipe: Path, names: Mapping[str, str]) -> Decision:
    """Whether a stage's artifact is there, partly there, or what made it another. ``names`` maps this plan's stages
    to their fingerprints."""
    record = index.stages.get(stage.fingerprint)
    if record is not None:
        return _decide_known(record)
    last = index.last(recipe, stage.name)
    if last is None:
        return Decision("new", ("new",), "new")
    if last == stage.fingerprint:
        return Decision("new", ("cache_missing",), "planned before, not run yet")
    previous = index.previous.get(last)
    moved = () if previous is None else _moved(stage, previous, names)
    if not moved:
        return Decision("redo", ("param_changed",), "changed since the last run")
    return _explain(stage, moved)


def _decide_known(record: Record) -> Decision:
    """What the index says of this very fingerprint."""
    if record.status == "done" and record.files_ok:
        return Decision("cached", (), "done")
    if record.status == "done":
        return Decision(
            "redo", ("cache_corrupt",), "files of the finished stage are missing or damaged"
        )
    progress = _progress(record)
    reasons: tuple[Reason, ...] = ("partial_cache",) if progress else ()
    if record.status == "failed":
        text = f"failed last time{f', {progress} kept' if progress else ''}"
        return Decision("partial" if progress else "new", ("previous_run_failed", *reasons), text)
    if progress:
        return Decision("partial", reasons, f"{progress} done, goes on there")
    return Decision("new", ("cache_missing",), "begun, nothing finished yet")


def _progress(record: Record) -> str:
    if record.steps_done:
        return f"{record.steps_done:,} steps"
    if record.num_shards:
        rows = f" ({record.num_rows:,} rows)" if record.num_rows else ""
        return f"{record.num_shards:,} shard{'s' if record.num_shards != 1 else ''}{rows}"
    return ""


def old_spec(previous: Previous) -> Spec | None:
    """The specification of an earlier version, if today's schema still reads it."""
    adapter: TypeAdapter[Spec] = TypeAdapter(Spec)
    try:
        return adapter.validate_python(previous.spec)
    except ValidationError:
        return None


def _moved(stage: Lowered, previous: Previous, names: Mapping[str, str]) -> tuple[Moved, ...]:
    """The leaves that matter and differ."""
    spec = old_spec(previous)
    if spec is None or spec.kind != stage.spec.kind:
        return ()
    try:
        before = leaves(spec, previous.parents, previous.revision)
    except KeyError:
        return ()
    after = leaves(stage.decided, names, stage.revision)
    return tuple(compare(before, after, deciding_classes(stage.spec)))


def _explain(stage: Lowered, moved: tuple[Moved, ...]) -> Decision:
    """The reason text: settings first, since they are what a person changed."""
    if kept := _samples_kept(stage, moved):
        return Decision(
            "partial",
            ("param_changed", "partial_cache"),
            kept,
            tuple(item.change() for item in moved),
        )
    own = [item for item in moved if item.reason != "parent_changed"]
    parents = [item for item in moved if item.reason == "parent_changed"]
    texts = [_told(item) for item in own]
    if parents and not own:
        names = dict.fromkeys(
            item.new.parent for item in parents if item.new is not None and item.new.parent
        )
        texts.append(f"{', '.join(names)} changed")
    reasons: tuple[Reason, ...] = tuple(dict.fromkeys(item.reason for item in [*own, *parents]))
    return Decision("redo", reasons, "; ".join(texts), tuple(item.change() for item in own))


def _samples_kept(stage: Lowered, moved: tuple[Moved, ...]) -> str:
    """Where only ``n`` of a ``sample`` moved, samples that were drawn are not drawn again."""
    if stage.spec.kind != "sample" or [item.path for item in moved] != ["n"]:
        return ""
    return f"{_told(moved[0])}; samples that were drawn are kept"


def _told(item: Moved) -> str:
    change = item.change()
    match item.reason:
        case "source_revision_changed":
            return "the source's content changed"
        case "model_revision_changed":
            return "the model's weights changed"
        case "code_version_changed":
            return (
                f"this kind of stage works differently now (version {change.old} -> {change.new})"
            )
        case _ if change.old == change.new:
            return f"what {change.path} asks changed"
        case _:
            return f"{change.path} {change.old} -> {change.new}"
