"""A view becomes the edits that format its file: only the lines that change, so that the cursor stays where it is."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from lsprotocol.types import TextEdit

from omrlang.format import format_text
from omrlang.lsp.positions import to_range
from omrlang.lsp.view import View
from omrlang.source import Span

_LINES = re.compile(r"[^\n]*\n|[^\n]+")


def formatting(view: View, encoding: str) -> list[TextEdit]:
    """No edits where the file cannot be read. Line ends are the editor's affair: it turns these into its own."""
    text = view.source.text
    before, after = _LINES.findall(text), _LINES.findall(format_text(text))
    edges = [0]
    for line in before:
        edges.append(edges[-1] + len(line))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    return [
        TextEdit(
            to_range(Span(view.source, edges[start], edges[end]), encoding),
            "".join(after[first:last]),
        )
        for tag, start, end, first, last in matcher.get_opcodes()
        if tag != "equal"
    ]
