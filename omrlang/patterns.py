"""A path with ``*``, ``?``, ``[…]`` or ``{…}`` becomes the files that it names, and a folder its pictures, by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path

MAX_FILES = 100_000
"""More than that braces do not name: they stand for themselves, and no such file exists."""

PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""How the names of picture files end."""

PICTURE_COLUMNS = ("path", "folder", "name", "images", "width", "height")
"""What a row of a picture file has: its path below the folder, the name of the folder that it lies in, its own name
without the ending, itself as the one image, and its size."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


def at_home(path: str) -> Path:
    """The path, a ``~`` at its beginning as the home folder; that of a user who is not there stands for itself."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def named_files(path: Path) -> list[Path]:
    """What the last part of a path names: each name that braces spell out, there or not; of a pattern what matches.

    >>> [file.name for file in named_files(Path("data/train-{08..10}.tar"))]
    ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    if path.exists():
        return [path]
    return [file for name in _spelled_out(path.name) for file in _matching(path.parent / name)]


def _matching(path: Path) -> list[Path]:
    if path.exists() or not any(sign in path.name for sign in "*?["):
        return [path]
    return sorted(file for file in path.parent.glob(path.name) if file.is_file())


def _spelled_out(name: str) -> list[str]:
    """``{a,b}`` and ``{08..10}``, whose numbers keep their width."""
    texts = _BRACES.split(name)  # literal, inside, literal, …
    sizes = [_size(text) if at % 2 else 1 for at, text in enumerate(texts)]
    if 0 in sizes or prod(sizes) > MAX_FILES:
        return [name]
    choices = [_choices(text) if at % 2 else [text] for at, text in enumerate(texts)]
    return ["".join(parts) for parts in product(*choices)]


def _size(inside: str) -> int:
    """How many names braces stand for; 0 where they are no pattern."""
    if found := _NUMBERS.fullmatch(inside):
        return max(0, int(found[2]) - int(found[1]) + 1)
    return len(inside.split(",")) if "," in inside else 0


def _choices(inside: str) -> list[str]:
    if found := _NUMBERS.fullmatch(inside):
        width = len(found[1])
        return [f"{number:0{width}}" for number in range(int(found[1]), int(found[2]) + 1)]
    return inside.split(",")


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder in order of names, less hidden ones. Links to folders are not followed."""
    if "\0" in str(folder):
        raise FileNotFoundError(folder)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path))
        elif not (
            entry.is_symlink() and Path(entry.path).is_dir()
        ):  # no error of links in a circle
            yield Path(entry.path)


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES
