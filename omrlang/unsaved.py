"""Texts that an editor holds and has not saved, or that a commit has: they stand in for files while a recipe is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


def real_path(path: Path) -> Path:
    """Where a path leads. One that no file can have stays as it is: who reads it says what is wrong with it."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL in it, or links in a circle
        return path


@dataclass(frozen=True, slots=True)
class Buffers:
    """``texts`` are by resolved path. ``read`` is every file that was asked for: as it is shown, and where it is."""

    texts: Mapping[Path, str]
    read: dict[Path, Path] = field(default_factory=dict)


_HELD: ContextVar[Buffers | None] = ContextVar("buffers", default=None)


@contextmanager
def held(texts: Mapping[Path, str]) -> Iterator[Buffers]:
    """Within this block ``texts`` are read in place of the files."""
    buffers = Buffers(texts)
    token = _HELD.set(buffers)
    try:
        yield buffers
    finally:
        _HELD.reset(token)


def unsaved_text(path: Path, shown: Path) -> str | None:
    """What an editor holds of a file; None where it holds nothing, or where there is no editor."""
    buffers = _HELD.get()
    if buffers is None:
        return None
    real = real_path(path)
    buffers.read[shown] = real
    return buffers.texts.get(real)
