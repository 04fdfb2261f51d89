"""A text with fixes for it becomes the text with those made that do not overlap."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from omrlang.diagnostics import Edit, Fix


def apply(text: str, fixes: Iterable[Fix]) -> tuple[str, list[Fix]]:
    """The new text and the fixes that are in it; of two that touch the same place the first is made.

    >>> from pathlib import Path
    >>> from omrlang.source import SourceFile, Span
    >>> file = SourceFile(Path("x.omr"), "sede = 7")
    >>> fix = Fix("write `seed`", (Edit(Span(file, 0, 4), "seed"),))
    >>> apply(file.text, [fix, fix])[0]
    'seed = 7'
    """
    made: list[Fix] = []
    edits: list[Edit] = []
    for fix in fixes:
        if not any(_touch(new, old) for new in fix.edits for old in edits):
            made.append(fix)
            edits += fix.edits
    for edit in sorted(edits, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text, made


def is_of(fix: Fix, path: Path) -> bool:
    """Whether a fix is of this file: a mistake can lie in a file that it uses, or in a ``--set``."""
    return all(edit.span.file.path == path for edit in fix.edits)


def _touch(one: Edit, other: Edit) -> bool:
    return one.span.start <= other.span.end and other.span.start <= one.span.end
