"""A file -> what it has to do with the runs of a state folder: who wrote it, or where what was read from it went."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omr_runtime import lineage
from omr_runtime.errors import RunError
from omr_runtime.lineage import Reader
from omr_runtime.store import State, read_index

_MAX_LISTED = 12


def trace(folder: Path, file: Path) -> list[str]:
    """What is known of the file. RunError where it is nothing, or there is no such file."""
    state = State(folder)
    if not file.exists():
        raise RunError(f"{file}: no such file")
    if (made := list(_artifact(state, file.resolve()))) and not _is_image(state, file):
        return made
    with lineage.read(state.lineage) as reader:
        lines = [*_read_from(reader, file), *_shown(state, reader, file), *_rows(reader, file)]
    if not lines:
        raise RunError(f"{file} has nothing to do with the runs of {state.folder}")
    return lines


# ---- written by a run ------------------------------------------------------------------------------------------


def _artifact(state: State, file: Path) -> Iterator[str]:
    """Which stage wrote a file below the state folder, and what reads that."""
    if not file.is_relative_to(state.folder):
        return
    stages = read_index(state)["stages"]
    mark = next((part for part in file.relative_to(state.folder).parts if part in stages), None)
    if mark is None:
        return
    entry = stages[mark]
    yield f"written by {entry['kind']}.{entry['name']} ({mark[:12]}), {entry['status']}, {entry.get('updated')}"
    index = read_index(state)
    for other, before in index["previous"].items():
        if mark in before["parents"].values() and other in stages:
            yield f"  read by {stages[other]['kind']}.{stages[other]['name']} ({other[:12]})"


# ---- read by a source ------------------------------------------------------------------------------------------


def _read_from(reader: Reader, file: Path) -> Iterator[str]:
    """The rows that sources read from the file, and where they and what was made of them ended."""
    names = sorted({str(file), str(file.absolute()), str(file.resolve())})
    for source in reader.sources_of(names):
        yield f"read by {source['kind']}.{source['name']} ({source['fingerprint'][:12]}): {source['num']:,} rows"
        for line in reader.fates_of(source["fingerprint"], names):
            yield f"  {_fate(line)}"


def _fate(line: dict[str, Any]) -> str:
    what = f"{line['num']:,} {'kept' if line['reason'] is None else 'dropped: ' + line['reason']}"
    return f"{line['kind']}.{line['name']}: {what}"


# ---- a picture -------------------------------------------------------------------------------------------------


def _is_image(state: State, file: Path) -> bool:
    return file.resolve().is_relative_to(state.folder / "store" / "images")


def _shown(state: State, reader: Reader, file: Path) -> Iterator[str]:
    """The rows that show the file's bytes as a picture."""
    if file.is_dir():
        return
    with file.open("rb") as data:
        digest = file_digest(data, "sha256").hexdigest()
    if not (state.folder / "store" / "images" / digest[:2] / digest).exists():
        return
    yield f"picture {digest}"
    for stage in reader.stages():
        files = sorted(state.artifact(stage["fingerprint"]).glob("part-*.parquet"))
        found = lineage.rows_with_image(files, digest)
        if found:
            more = f" and {len(found) - _MAX_LISTED:,} more" if len(found) > _MAX_LISTED else ""
            shown = ", ".join(name[:12] for name in found[:_MAX_LISTED])
            yield f"  shown by {len(found):,} rows of {stage['kind']}.{stage['name']}: {shown}{more}"


# ---- rows that were taken elsewhere ----------------------------------------------------------------------------


def _rows(reader: Reader, file: Path) -> Iterator[str]:
    """The stages that hold rows whose ids stand in a Parquet file."""
    if file.is_dir() or file.suffix != ".parquet":
        return
    try:
        ids = pq.read_table(file, columns=["id"])["id"].to_pylist()
    except (OSError, pa.ArrowException, KeyError):
        return
    if found := reader.holders_of(ids):
        yield f"{len(ids):,} rows, of which"
        for line in found:
            yield f"  {line['num']:,} are in {line['kind']}.{line['name']} ({line['fingerprint'][:12]})"
