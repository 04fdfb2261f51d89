"""What an editor has open, and the recipes in its folders, become views that are as fresh as their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from omrlang.lsp.view import View, read

MAX_FILES = 2_000
"""Recipes of a workspace that are looked at for mentions of a name."""

Stamp: TypeAlias = str | tuple[int, int] | None
"""The text that the editor holds, or the file's time of change and size; None where there is no file."""

_SKIPPED = {"node_modules", "__pycache__", "build", "dist", "venv"}


@dataclass(slots=True)
class Workspace:
    """``texts`` and ``uris`` are of the open files, by resolved path; ``folders`` those that the editor shows."""

    folders: list[Path] = field(default_factory=list)
    texts: dict[Path, str] = field(default_factory=dict)
    uris: dict[Path, str] = field(default_factory=dict)
    _views: dict[Path, tuple[dict[Path, Stamp], View]] = field(default_factory=dict)

    def put(self, path: Path, uri: str, text: str) -> None:
        self.texts[path], self.uris[path] = text, uri

    def drop(self, path: Path) -> None:
        self.texts.pop(path, None)
        self.uris.pop(path, None)

    def uri(self, path: Path) -> str:
        """As the editor calls an open file, which may be through a link."""
        return self.uris.get(path) or path.as_uri()

    def view(self, path: Path) -> View:
        """A file's view; read again if any file that it was made of has changed."""
        stamps, view = self._views.get(path, ({}, None))
        if view is None or any(self._stamp(file) != stamp for file, stamp in stamps.items()):
            view = read(path, dict(self.texts))
            self._views[path] = ({file: self._stamp(file) for file in view.real.values()}, view)
        return view

    def open_views(self) -> list[View]:
        return [self.view(path) for path in self.texts]

    def views(self) -> list[View]:
        """Of every recipe in the folders, the open ones first."""
        return [self.view(path) for path in dict.fromkeys([*self.texts, *self._files()])]

    def _files(self) -> list[Path]:
        found: list[Path] = []
        for folder in self.folders:
            for path in _recipes(folder):
                found.append(path)
                if len(found) >= MAX_FILES:
                    return found
        return found

    def _stamp(self, path: Path) -> Stamp:
        if path in self.texts:
            return self.texts[path]
        try:
            status = path.stat()
        except (OSError, ValueError):  # a NUL in the path
            return None
        return status.st_mtime_ns, status.st_size


def _recipes(folder: Path) -> Iterator[Path]:
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        yield from (
            (Path(base) / name).resolve() for name in sorted(files) if name.endswith(".omr")
        )
