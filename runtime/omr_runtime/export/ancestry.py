"""A stage -> all that it was made of: the stages above it, each with its specification and what it counted.

Alone knows how the index ties the artifacts of a recipe together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from omr_runtime.errors import RunError
from omr_runtime.store import State, read_index
from omr_runtime.story import find_stage
from omrlang.plan import Plan
from omrlang.schema import Source, Spec
from omrlang.types import Model, Place

_SPEC: TypeAdapter[Spec] = TypeAdapter(Spec)


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact. ``entry`` is its record in the index; ``parents`` maps the names of what it was made of to fingerprints;
    ``pins`` what lay outside to its revision."""

    fingerprint: str
    spec: Spec
    entry: dict[str, Any]
    parents: dict[str, str]
    revision: str | None
    pins: dict[str, str]

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @property
    def address(self) -> str:
        return f"{self.entry['kind']}.{self.name}"


def ancestry(state: State, text: str) -> list[Made]:
    """The stage that a name or the start of a fingerprint means, after all that it stands on.

    RunError where there is no such stage, where it is not finished, or where nobody knows any more what it was made of.
    """
    index = read_index(state)
    mark, entry = find_stage(state, text)
    if entry["status"] != "done":
        raise RunError(
            f"{entry['kind']}.{entry['name']} is not finished; `omr run` goes on with it"
        )
    found: dict[str, Made] = {}
    _climb(index, mark, found)
    return list(found.values())


def _climb(index: dict[str, Any], mark: str, found: dict[str, Made]) -> None:
    if mark in found:
        return
    made = _made(index, mark)
    for parent in made.parents.values():
        _climb(index, parent, found)
    found[mark] = made


def _made(index: dict[str, Any], mark: str) -> Made:
    entry, before = index["stages"].get(mark), index["previous"].get(mark)
    if entry is None or before is None:
        name = entry["name"] if entry else mark[:12]
        raise RunError(
            f"what {name} was made of is no longer in the index, because its recipe has changed since; "
            "`omr run` it again as it was"
        )
    try:
        spec = _SPEC.validate_python(before["spec"])
    except ValidationError as error:
        raise RunError(
            f"{entry['name']} was made by another version of omr; run it again"
        ) from error
    return Made(mark, spec, entry, before["parents"], before["revision"], before["pins"])


def of_plan(plan: Plan, stages: Mapping[str, dict[str, Any]], name: str) -> list[Made]:
    """The same from a plan at hand, of what the index has of it by fingerprint."""
    stage = plan.stage(name)
    found: dict[str, Made] = {}
    for parent in stage.parents:
        found |= {one.fingerprint: one for one in of_plan(plan, stages, parent)}
    if stage.fingerprint in stages:
        pins = {pin.what: pin.revision for pin in plan.pins if name in pin.stages and pin.revision}
        parents = {parent: plan.stage(parent).fingerprint for parent in stage.parents}
        entry = stages[stage.fingerprint]
        mark = stage.fingerprint
        found[mark] = Made(mark, stage.spec, entry, parents, stage.revision, pins)
    return list(found.values())


def sources(made: Iterable[Made]) -> list[tuple[Made, Source]]:
    return [(one, one.spec) for one in made if isinstance(one.spec, Source)]


def place_text(place: Place) -> str:
    """As a recipe has it.

    >>> from omrlang.types import Jsonl
    >>> place_text(Jsonl(path="a.jsonl"))
    "jsonl('a.jsonl')"
    """
    first, *rest = place.model_dump(exclude={"kind"}, exclude_none=True).items()
    shown = public_path(first[1]) if first[0] == "path" else first[1]
    more = "".join(f", {name} = {value!r}" for name, value in rest)
    return f"{place.kind}({shown!r}{more})"


def model_text(model: Model) -> str:
    """A model's name with where its weights come from."""
    parts = model.source.model_dump(exclude={"kind"}, exclude_none=True)
    if "path" in parts:
        parts["path"] = public_path(parts["path"])
    shown = ", ".join(str(value) for value in list(parts.values())[:2])
    return f"{model.name} ({model.source.kind} {shown})"


def public_path(path: str) -> str:
    """A path as others may read it: of one that says where things lie on this machine its last part.

    >>> public_path("data/a.jsonl"), public_path("/home/somebody/a.jsonl"), public_path("~/b")
    ('data/a.jsonl', '…/a.jsonl', '…/b')
    """
    leads_out = path.startswith(("/", "~", "\\")) or PurePath(path).is_absolute()
    return f"…/{PurePath(path).name}" if leads_out else path
