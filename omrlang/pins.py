"""What lies outside a recipe becomes a pin: the content hash and row count of a local file, the revision on a hub.

Reads files, never a network. Hashes are kept beside the run's state by path, size and time of change, so that a file
is read once.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, assert_never

from omrlang.patterns import at_home, is_picture, named_files
from omrlang.types import (
    Csv,
    Folder,
    FolderModel,
    Fresh,
    HfData,
    HfModel,
    Json,
    Jsonl,
    Model,
    Parquet,
    Place,
    Scripted,
    Synthetic,
    Webdataset,
    WheelModel,
)

Kind: TypeAlias = Literal["data", "model"]
CACHE = "pins.json"
SAVED = ("dataset_dict.json", "state.json")
"""What ``datasets.save_to_disk`` leaves in its folder."""
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Pin:
    """``what`` is read from outside, as the recipe names it. ``revision`` is None where it could not be known, and
    ``problem`` says why."""

    kind: Kind
    what: str
    revision: str | None
    num_rows: int | None = None
    num_bytes: int | None = None
    problem: str | None = None
    on_a_hub: bool = False


@dataclass(slots=True)
class Pins:
    """Pins places and models; ``known`` is what earlier plans found, ``save`` keeps it for the next one."""

    folder: Path
    state: Path
    known: dict[str, list[object]] = field(default_factory=dict)
    changed: bool = False

    @staticmethod
    def open(folder: Path, state: Path) -> Pins:
        """An unreadable cache is no cache."""
        try:
            known = json.loads((state / CACHE).read_text())["files"]
        except (OSError, ValueError, KeyError, TypeError):
            known = {}
        return Pins(folder, state, known if isinstance(known, dict) else {})

    def save(self) -> None:
        """Keep the hashes, where a state folder exists and can be written; a plan needs neither."""
        if not self.changed or not self.state.is_dir():
            return
        beside = self.state / f".{CACHE}.{os.getpid()}"
        try:
            beside.write_text(json.dumps({"format": 1, "files": self.known}))
            os.replace(beside, self.state / CACHE)
        except OSError:
            beside.unlink(missing_ok=True)

    def place(self, place: Place) -> Pin | None:
        """The pin of where a source's rows are; None where a program draws them."""
        match place:
            case Synthetic():
                return None
            case HfData(id=id_, revision=revision):
                return _on_a_hub("data", id_, revision, "a changed dataset is not noticed")
            case Folder() | Parquet() | Jsonl() | Json() | Csv() | Webdataset():
                return self.local(place.path, place.kind)
            case _:
                assert_never(place)

    def model(self, model: Model) -> Pin | None:
        """The pin of a model's weights; None where the recipe itself says all that they are."""
        match model.source:
            case FolderModel(path=path):
                return self.local(path, "model")
            case HfModel(id=id_, revision=revision):
                return _on_a_hub("model", id_, revision, "changed weights are not noticed")
            case WheelModel() | Fresh() | Scripted():
                return None
            case _:
                assert_never(model.source)

    def local(self, path: str, kind: str) -> Pin:
        """Content hash, rows and bytes of a file, a folder or a pattern."""
        base = self.folder / at_home(path)
        of: Kind = "model" if kind == "model" else "data"
        try:
            files = list(_files(base))
            gone = [file for file in files if not file.exists()]
            if gone or not files:
                name = f"{gone[0].name} of {path}" if len(files) > 1 else path
                return Pin(of, path, None, problem=f"{name} does not exist")
            found = [self.file(file, kind) for file in files]
        except OSError as error:
            return Pin(of, path, None, problem=f"{path} cannot be read: {error.strerror}")
        total = _total(kind, files, [rows for _, rows, _ in found])
        size = sum(size for _, _, size in found)
        return Pin(of, path, _together(base, files, found), total, size)

    def file(self, file: Path, kind: str) -> tuple[str, int | None, int]:
        """SHA-256, rows and size of one file."""
        stat = file.stat()
        key = f"{kind}:{file.resolve()}"
        match self.known.get(key):
            case [stat.st_size, stat.st_mtime_ns, str() as digest, int() | None as rows]:
                return digest, rows, stat.st_size
            case _:
                digest, rows = _digest(file), _count(file, kind)
        self.known[key] = [stat.st_size, stat.st_mtime_ns, digest, rows]
        self.changed = True
        return digest, rows, stat.st_size


def _total(kind: str, files: list[Path], counts: list[int | None]) -> int | None:
    """Rows of all files; a folder of pictures has one for each."""
    if kind == "folder" and all(
        file.suffix != ".parquet" and file.name not in SAVED for file in files
    ):
        return sum(map(is_picture, files)) or None
    return None if any(rows is None for rows in counts) else sum(rows or 0 for rows in counts)


def _on_a_hub(kind: Kind, name: str, revision: str | None, risk: str) -> Pin:
    problem = None if revision else f"the revision of {name} is not pinned, so {risk}"
    return Pin(kind, name, revision, problem=problem, on_a_hub=True)


def _files(base: Path) -> Iterator[Path]:
    """The files that a path leads to, in an order that no file system decides."""
    if base.is_dir():
        yield from sorted(
            file for file in base.rglob("*") if file.is_file() and not _hidden(file, base)
        )
    else:
        yield from named_files(base)


def _hidden(file: Path, base: Path) -> bool:
    """Whether the file, or a folder on the way to it, begins with a dot or is a cache that ``datasets`` leaves."""
    parts = file.relative_to(base).parts
    return any(part.startswith(".") for part in parts) or parts[-1].startswith("cache-")


def _together(base: Path, files: list[Path], found: list[tuple[str, int | None, int]]) -> str:
    """One file is its own hash; several are the hash of their names below the folder and their hashes."""
    if len(files) == 1 and files[0] == base:
        return found[0][0]
    root = base if base.is_dir() else base.parent
    lines = [
        f"{file.relative_to(root).as_posix()} {digest}"
        for file, (digest, _, _) in zip(files, found, strict=True)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _count(file: Path, kind: str) -> int | None:
    """Rows of a data file where they are cheap to count; None for what only a reader can tell."""
    try:
        match kind:
            case "jsonl":
                return _count_lines(file)
            case "json":
                rows = json.loads(file.read_bytes())
                return len(rows) if isinstance(rows, list) else None
            case "csv":
                with file.open(newline="", encoding="utf-8") as handle:
                    return max(0, sum(1 for _ in csv.reader(handle)) - 1)
            case "webdataset":
                return _count_samples(file)
            case "parquet" | "folder":
                return _parquet_rows(file) if file.suffix == ".parquet" else None
            case _:
                return None
    except (ValueError, csv.Error):
        return None


def _count_lines(file: Path) -> int:
    """Lines that hold something."""
    with file.open("rb") as handle:
        return sum(1 for line in handle if line.strip())


def _count_samples(file: Path) -> int:
    from omrlang.tars import tar_samples

    return sum(1 for _ in tar_samples(file, contents=False))


def _parquet_rows(file: Path) -> int | None:
    """Rows by a Parquet footer; DuckDB is imported only here, since few recipes need it to be planned."""
    import duckdb

    try:
        with duckdb.connect(":memory:") as connection:
            rows = connection.read_parquet(str(file)).aggregate("count(*)").fetchall()
    except duckdb.Error:
        return None
    return int(rows[0][0])
