"""A tar file in WebDataset's form becomes its samples: neighbours whose names agree up to the first dot.

``000/17.jpg`` and ``000/17.json`` are one sample with the columns ``jpg`` and ``json``. One sample is in memory at a
time. Nothing is written: a name that would leave the folder of an unpacked archive is refused all the same, since
whoever packed it meant harm or made a mistake.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

MAX_MEMBER_BYTES = 1 << 30
KEY = "__key__"
"""The column that holds what the names of a sample's members have in common."""


class BrokenTar(ValueError):
    """A file that is no tar file, or is not whole. The text is the reason, without the file."""


@dataclass(slots=True)
class TarSample:
    """``members`` maps a column to its bytes, ``names`` to its name in the archive. ``problem`` is the first one found."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


class _Header(tarfile.TarInfo):
    """``tarfile`` takes a damaged header, or a missing one, for the end: then rows would be missing in silence."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("the end mark is missing") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a damaged header ({error})") from error


def tar_samples(file: Path, *, contents: bool = True) -> Iterator[TarSample]:
    """The samples in order, also those that something is wrong with. Without ``contents`` their bytes are empty.

    Raises BrokenTar where the archive ends early, OSError where the file cannot be read.
    """
    sample: TarSample | None = None
    seen: set[str] = set()
    for name, data, problem in _members(file, contents):
        key, _, column = _split(name)
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            again = f"members of one sample are not side by side: {name}" if key in seen else None
            sample = TarSample(key, problem=again)
            seen.add(key)
        _add(sample, column, name, data, problem)
    if sample is not None:
        yield sample


def _split(name: str) -> tuple[str, str, str]:
    """``a/17.seg.PNG`` to ``a/17``, the dot and ``seg.png``."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}{slash}{stem}", dot, ending.lower()


def _add(sample: TarSample, column: str, name: str, data: bytes, problem: str | None) -> None:
    if problem is None and not column:
        problem = f"a member's name has no ending: {name}"
    if problem is None and (column in sample.members or column == KEY):
        problem = f"a member stands twice: {name}"
    sample.problem = sample.problem or problem
    sample.members[column], sample.names[column] = data, name


def _members(file: Path, contents: bool) -> Iterator[tuple[str, bytes, str | None]]:
    """Name, bytes and what is wrong, of every member but folders and what hidden files and notes of the archive are."""
    name = ""
    with file.open("rb") as raw:
        try:
            with tarfile.open(fileobj=raw, mode="r:*", tarinfo=_Header) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
                    name = member.name.removeprefix("./")
                    if not member.isdir() and not _passed_over(name):
                        problem = _problem(member, name)
                        wanted = contents and problem is None
                        yield _shown(name), _read(tar, member) if wanted else b"", problem
        except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            after = f"after {_shown(name)}" if name else "at its beginning"
            raise BrokenTar(f"{_reason(error)}, {after}") from error


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    data: IO[bytes] | None = tar.extractfile(member)
    assert data is not None, "only plain files come here"
    found = data.read()
    if len(found) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return found


def _passed_over(name: str) -> bool:
    """Hidden files (``._17.jpg`` of a Mac), and what WebDataset keeps for itself (``__meta__``)."""
    last = name.rpartition("/")[2]
    return last.startswith(".") or (name.startswith("__") and name.endswith("__"))


def _problem(member: tarfile.TarInfo, name: str) -> str | None:
    path = PurePosixPath(name)
    if _shown(name) != name:
        return f"a member's name is not UTF-8: {_shown(name)}"
    if path.is_absolute() or ".." in path.parts:
        return f"a member's name leaves the archive: {name}"
    if not member.isreg():
        return f"a member is no plain file: {name}"
    if member.size > MAX_MEMBER_BYTES:
        return f"a member is over {MAX_MEMBER_BYTES >> 30} GiB: {name}"
    return None


def _shown(name: str) -> str:
    """A name that can be printed: bytes that are not UTF-8 as ``\\xe4``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not a tar file" if text.startswith("file could not be opened") else text
