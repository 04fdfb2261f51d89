"""A plan and what it was made of become one file, ``x.omrplan``, and such a file becomes a plan again.

The file is a zip whose bytes hang on nothing but its contents: ``manifest.json`` (format and the sha256 of each other
member), ``plan.json``, ``resolved.json`` (every value with the layer that set it), ``lock.json`` (what lies outside the
recipe, pinned) and ``sources/``, the recipe's files as they were read. Members are only ever read into memory, each at most ``MAX_MEMBER_BYTES``.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omrlang.diagnostics import InputError
from omrlang.fingerprint import fingerprint
from omrlang.hir import Recipe
from omrlang.plan import FORMAT_VERSION, Plan
from omrlang.source import SourceFile

FORMAT = "omrplan 1"
MANIFEST, PLAN, RESOLVED = "manifest.json", "plan.json", "resolved.json"
MAX_MEMBER_BYTES = 64 << 20
MAX_MEMBERS = 1000
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What ``zipfile`` raises over bytes that are no zip, or a cut, encrypted or forged one."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


class BadPlanFile(InputError):
    """Not a plan file, or not as it was saved."""


# ---- writing -------------------------------------------------------------------------------------------------------


def packed(plan: Plan, resolved: Sequence[Mapping[str, Any]], recipe: Recipe) -> bytes:
    """The bytes of the file; the same for the same contents, on any machine."""
    files = sources(recipe)
    shown = {f"sources/{number}.omr": str(file.path) for number, file in enumerate(files)}
    members = {
        PLAN: plan.model_dump_json(indent=1).encode(),
        RESOLVED: _json(list(resolved)),
        "lock.json": _json([pin.model_dump(exclude={"drift"}) for pin in plan.pins]),
        **{name: file.text.encode() for name, file in zip(shown, files, strict=True)},
    }
    manifest = {
        "format": FORMAT,
        "omr_version": plan.omr_version,
        "sources": shown,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    return _zipped({MANIFEST: _json(manifest), **members})


def sources(recipe: Recipe) -> tuple[SourceFile, ...]:
    """The files in which the recipe's values stand: its own first, then the others by name."""
    found = {file.path: file for file in _files(recipe)}
    return tuple(
        sorted(found.values(), key=lambda file: (file.path != recipe.path, str(file.path)))
    )


def _files(recipe: Recipe) -> Iterator[SourceFile]:
    yield from (thing.span.file for thing in recipe.things)
    yield from (stage.span.file for stage in recipe.stages)
    yield from (span.file for span in recipe.allowed.values())
    owners = (recipe.settings, *(thing.settings for thing in recipe.things))
    for settings in (*owners, *(stage.settings for stage in recipe.stages)):
        yield from (origin.span.file for origin in settings.values() if origin.span is not None)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _zipped(members: Mapping[str, bytes]) -> bytes:
    """Stored, not deflated: how a deflated stream looks hangs on the version of zlib."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16
            file.writestr(info, data)
    return out.getvalue()


# ---- reading -------------------------------------------------------------------------------------------------------


def read_plan(path: Path) -> Plan:
    """The plan of the file. Raises ``BadPlanFile`` for anything that is not exactly as it was saved."""
    return read_resolved(path)[0]


def read_resolved(path: Path) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan, and every value of its recipe with the layer that set it and the place, as it was saved. Raises
    ``BadPlanFile``."""
    try:
        with zipfile.ZipFile(path) as file:
            members = _members(file, path)
        return Plan.model_validate_json(members[PLAN]), json.loads(members[RESOLVED])
    except OSError as error:
        raise BadPlanFile(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        message = (
            f"{path} holds no plan that this version reads (it writes format {FORMAT_VERSION})"
        )
        raise BadPlanFile(message) from error
    except _BROKEN as error:
        raise BadPlanFile(f"{path} is no plan file, or was cut short ({error})") from error


def _members(file: zipfile.ZipFile, path: Path) -> dict[str, bytes]:
    names = file.namelist()
    if MANIFEST not in names or len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise BadPlanFile(f"{path} is a zip, but no plan file")
    hashes = _hashes(_read(file, MANIFEST, path), path)
    if set(names) != {MANIFEST, *hashes} or not {PLAN, RESOLVED} <= hashes.keys():
        raise BadPlanFile(f"{path} was changed after it was saved: its list of files is another")
    members = {name: _read(file, name, path) for name in hashes}
    for name, data in members.items():
        if hashlib.sha256(data).hexdigest() != hashes[name]:
            raise BadPlanFile(f"{path} was changed after it was saved: {name} is another")
    return members


def _hashes(manifest: bytes, path: Path) -> dict[str, str]:
    try:
        found = json.loads(manifest)
        known, hashes = found["format"], dict(found["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadPlanFile(f"{path} is a zip, but no plan file") from error
    if known != FORMAT:
        raise BadPlanFile(f"{path} is written as `{known}`; this version reads `{FORMAT}`")
    return hashes


def _read(file: zipfile.ZipFile, name: str, path: Path) -> bytes:
    with file.open(name) as member:
        data = member.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise BadPlanFile(f"{path}: {name} is over {MAX_MEMBER_BYTES >> 20} MiB")
    return data


def check_hashes(plan: Plan, path: Path) -> None:
    """Every fingerprint is computed anew from what the plan says of its stage. Raises ``BadPlanFile``."""
    marks = {stage.name: stage.fingerprint for stage in plan.stages}
    for stage in plan.stages:
        try:
            parents = {name: marks[name] for name in stage.parents}
            mark = fingerprint(stage.spec, parents, stage.revision)
        except KeyError as error:
            raise BadPlanFile(f"{path}: {stage.address} names a stage that is not there") from error
        if mark != stage.fingerprint:
            raise BadPlanFile(
                f"{path}: {stage.address} is not what its fingerprint says; it was changed by hand, "
                f"or made by another version of omr ({plan.omr_version})"
            )
