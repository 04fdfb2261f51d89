"""A cursor becomes the place where the name there is defined, in whatever file that is."""

from __future__ import annotations

from pathlib import Path

from lsprotocol.types import Position

from omrlang import syntax as s
from omrlang.lsp.cursor import Cursor, cursor_at
from omrlang.lsp.names import Target, mention_at, target_of
from omrlang.lsp.positions import to_offset
from omrlang.lsp.view import View
from omrlang.scope import Scope
from omrlang.source import SourceFile, Span
from omrlang.unsaved import real_path


def define(view: View, position: Position, encoding: str) -> tuple[Path, Span] | None:
    """Where the name at a position is defined. A module and the file of an ``amend`` are the start of that file."""
    offset = to_offset(view.source, position, encoding)
    file = _file_at(view, offset)
    if file is not None:
        return file, Span(SourceFile(file, ""), 0, 0)
    target = meaning(view, cursor_at(view.source, offset))
    if target is None:
        return None
    if target.kind == "module" and (module := _module(view, target)) is not None:
        return view.real.get(module.file.path, module.file.path), Span(module.file, 0, 0)
    return target.path, target.span


def meaning(view: View, cursor: Cursor) -> Target | None:
    """What the name at the cursor stands for; in a statement that cannot be read, what it probably does."""
    mention = mention_at(view, cursor.start)
    if mention is not None:
        return mention.target
    readable = any(
        statement.span.start <= cursor.start <= statement.span.end
        for statement in view.tree.statements
    )
    if readable or cursor.standing != "value":
        return None
    return _guess(view, cursor)


def _guess(view: View, cursor: Cursor) -> Target | None:
    scope: Scope | None = view.scope
    for name in cursor.chain:
        scope = scope.modules.get(name) if scope else None
    word = view.source.text[cursor.start : cursor.end]
    return target_of(view, scope, word) if scope else None


def _module(view: View, target: Target) -> Scope | None:
    found = view.scope.modules.get(target.name)
    return None if found is None or found.is_broken else found


def _file_at(view: View, offset: int) -> Path | None:
    """The file that a text in ``amend`` or ``use`` at the offset names."""
    for statement in view.tree.statements:
        match statement:
            case s.Amend(file=s.Text() as text) | s.Use(module=s.Text() as text):
                if text.span.start <= offset <= text.span.end:
                    found = real_path(view.path.parent / text.value)
                    return found if found in view.real.values() else None
            case _:
                pass
    return None
