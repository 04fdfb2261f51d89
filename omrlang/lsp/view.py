"""A recipe file as it stands in the editor becomes what the features ask: its tree, its names, what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omrlang import syntax as s
from omrlang.check import check_in
from omrlang.check.context import Context
from omrlang.check.things import build
from omrlang.compiler import load_all
from omrlang.diagnostics import Diagnostic, Reporter
from omrlang.files import read_source
from omrlang.hir import Recipe
from omrlang.parse import parse
from omrlang.resolve import resolve
from omrlang.scope import Scope
from omrlang.source import SourceFile, Span
from omrlang.unsaved import held


@dataclass(frozen=True)
class View:
    """One file, read as a recipe of its own. ``real`` tells where each file lies that was read, by the path it is shown as;
    ``texts`` are those that the editor holds."""

    path: Path
    tree: s.File
    scope: Scope
    texts: Mapping[Path, str]
    real: Mapping[Path, Path]

    @property
    def source(self) -> SourceFile:
        return self.tree.source

    def place(self, span: Span) -> Path:
        """The file that a span lies in."""
        return self.real.get(span.file.path, span.file.path)

    @cached_property
    def checked(self) -> tuple[tuple[Recipe, ...], list[Diagnostic]]:
        """The recipe's variants and what is wrong with it; there are no variants where an error is among that."""
        with held(self.texts):
            return load_all(self.path)

    @cached_property
    def context(self) -> Context:
        """What the checker found out about things and columns, as far as it came."""
        context = Context(Reporter(), self.scope, build)
        check_in(context)
        return context


def read(path: Path, texts: Mapping[Path, str]) -> View:
    """The view of a file; ``texts`` are those that the editor holds, by resolved path."""
    with held(texts) as buffers:
        source = read_source(path, path, None, Reporter()) or SourceFile(path, "")
        tree = parse(source, Reporter())
        scope = resolve(tree, path.parent, Reporter())
    return View(path, tree, scope, texts, buffers.read)
