"""A cursor becomes every mention of the name there, in all files of the workspace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lsprotocol.types import Position

from omrlang.lsp.cursor import cursor_at
from omrlang.lsp.definition import meaning
from omrlang.lsp.names import Mention, Target, mentions
from omrlang.lsp.positions import to_offset
from omrlang.lsp.view import View


@dataclass(frozen=True, slots=True)
class Found:
    """A mention and the file that it stands in."""

    path: Path
    mention: Mention


def references(
    view: View, position: Position, encoding: str, others: Iterable[View], *, declaration: bool
) -> list[Found]:
    """``declaration`` says whether the place of the definition is among them."""
    target = meaning(view, cursor_at(view.source, to_offset(view.source, position, encoding)))
    if target is None:
        return []
    found = of(target, others)
    return [item for item in found if declaration or not item.mention.defines]


def of(target: Target, views: Iterable[View]) -> list[Found]:
    """Every mention of what is defined there."""
    return [
        Found(view.path, mention)
        for view in views
        if target.name in view.source.text
        for mention in mentions(view)
        if mention.target == target
    ]
