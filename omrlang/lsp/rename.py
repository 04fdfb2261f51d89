"""A cursor and a new name become edits of every file that says the old one, or the reason why that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lsprotocol.types import Position, Range

from omrlang.diagnostics import Edit, Fix
from omrlang.fixes import apply
from omrlang.functions import COLUMNS
from omrlang.lsp.cursor import cursor_at
from omrlang.lsp.definition import meaning
from omrlang.lsp.names import Target, mentions, target_of
from omrlang.lsp.positions import to_offset, to_position
from omrlang.lsp.references import Found, of
from omrlang.lsp.view import View, read
from omrlang.parse import RESERVED
from omrlang.resolve import BARE_VERIFIERS
from omrlang.source import Span
from omrlang.words import CALLED


class Refused(Exception):
    """Why a name cannot be changed; the text is shown to the person who asked."""


def renameable(view: View, position: Position, encoding: str, library: Path) -> Range:
    """Where the name at a position stands. Refused where it is none, or not the recipe's own."""
    cursor = cursor_at(view.source, to_offset(view.source, position, encoding))
    _target(view, position, encoding, library)
    return Range(
        to_position(view.source, cursor.start, encoding),
        to_position(view.source, cursor.end, encoding),
    )


def rename(
    view: View, position: Position, encoding: str, new: str, views: Sequence[View], library: Path
) -> dict[Path, list[Edit]]:
    """The edits by file. ``views`` are all files that may mention the name, ``library`` is never changed."""
    target = _target(view, position, encoding, library)
    if new == target.name:
        return {}
    _check_word(target, new)
    found = of(target, views)
    _check_broken(target, views)
    _check_clashes(target, new, views)
    edits: dict[Path, list[Edit]] = {}
    for item in found:
        edits.setdefault(item.path, []).append(_edit(item, new))
    _check_result(target, new, edits, views)
    return edits


def _target(view: View, position: Position, encoding: str, library: Path) -> Target:
    target = meaning(view, cursor_at(view.source, to_offset(view.source, position, encoding)))
    if target is None:
        raise Refused("here stands no name that a recipe gives")
    if target.path.is_relative_to(library) and not view.path.is_relative_to(library):
        raise Refused(f"`{target.name}` belongs to the standard library")
    return target


def _check_word(target: Target, new: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", new):
        raise Refused(f"`{new}` is no name: letters, digits and _, not a digit first")
    if new in RESERVED:
        raise Refused(f"`{new}` is a word of the language")
    if new in COLUMNS:
        raise Refused(f"`{new}` is the name of a column of the row")
    if new in BARE_VERIFIERS or (target.kind == "let" and new in CALLED):
        raise Refused(f"`{new}` is the name of a {'function' if new in CALLED else 'verifier'}")


def _check_broken(target: Target, views: Iterable[View]) -> None:
    """A statement that cannot be read may mention the name: then nothing is changed by halves."""
    word = re.compile(rf"\b{re.escape(target.name)}\b")
    for view in views:
        covered = [(item.span.start, item.span.end) for item in view.tree.statements]
        comments = [(item.span.start, item.span.end) for item in view.tree.comments]
        for match in word.finditer(view.source.text):
            if not any(start <= match.start() < end for start, end in (*covered, *comments)):
                line, _ = view.source.position(match.start())
                raise Refused(
                    f"{view.path.name}:{line} cannot be read and says `{target.name}`; mend it first"
                )


def _check_clashes(target: Target, new: str, views: Iterable[View]) -> None:
    """An amending file has the names of its base beside its own, whether or not it mentions them."""
    for view in views:
        has_it = target_of(view, view.scope, target.name) == target
        if has_it and (new in view.scope.spans or new in view.scope.drafts):
            raise Refused(f"{view.path.name} has a `{new}` already")


def _check_result(
    target: Target, new: str, edits: dict[Path, list[Edit]], views: Iterable[View]
) -> None:
    """Read everything again as it would be: each changed word must mean the new name, and not a column, say."""
    texts = {
        view.path: apply(view.source.text, [Fix("rename", tuple(edits.get(view.path, ())))])[0]
        for view in views
    }
    for path, items in edits.items():
        after = [mention.target for mention in mentions(read(path, texts))]
        meant = [one for one in after if (one.name, one.path) == (new, target.path)]
        if len(meant) != len(items):
            raise Refused(f"`{new}` means something else in {path.name}")


def _edit(item: Found, new: str) -> Edit:
    """A module that is bound by its own name gets one with ``as``."""
    span, target = item.mention.span, item.mention.target
    before = span.file.text[: span.start].rstrip()
    if target.kind == "module" and item.mention.defines and before.endswith("."):
        return Edit(Span(span.file, span.end, span.end), f" as {new}")
    return Edit(span, new)
