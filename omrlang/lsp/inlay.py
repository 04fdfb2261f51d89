"""A view becomes hints of the settings that nobody wrote: what decides the result, with the value that holds."""

from __future__ import annotations

from collections.abc import Iterator

from lsprotocol.types import InlayHint, InlayHintLabelPart, MarkupContent, MarkupKind, Range

from omrlang import declared
from omrlang import syntax as s
from omrlang.declared import Key
from omrlang.describe import default_text, setting_text
from omrlang.lsp.positions import to_position
from omrlang.lsp.view import View
from omrlang.scope import STAGES, Draft

DECIDES = ("rows", "weights")


def inlay_hints(view: View, visible: Range, encoding: str) -> Iterator[InlayHint]:
    """One hint behind the head of each stage in view, each setting with its own documentation."""
    for statement in view.tree.statements:
        if not isinstance(statement, s.Declaration) or statement.block is None:
            continue
        draft = view.scope.drafts.get(statement.name.id)
        if draft is None or statement.kind.id not in STAGES:
            continue
        position = to_position(view.source, statement.block.span.start + 1, encoding)
        keys = _unwritten(draft)
        if keys and visible.start.line <= position.line <= visible.end.line:
            yield InlayHint(position, [*_parts(keys)], padding_left=True)


def _unwritten(draft: Draft) -> list[Key]:
    """What decides the result, has a default that does something, and is set by no layer."""
    keys = declared.settings(draft.kind).values()
    given = {key.setting.one_of for key in keys if draft.sets(key.name)} - {None}
    return [
        key
        for key in keys
        if key.setting.cls in DECIDES
        and not draft.sets(key.name)
        and key.setting.one_of not in given
        and not key.required
        and default_text(key) != "none"
    ]


def _parts(keys: list[Key]) -> Iterator[InlayHintLabelPart]:
    for index, key in enumerate(keys):
        if index:
            yield InlayHintLabelPart(", ")
        told = MarkupContent(MarkupKind.Markdown, setting_text(key))
        yield InlayHintLabelPart(f"{key.name} = {default_text(key)}", tooltip=told)
