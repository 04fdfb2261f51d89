"""The name of a library module that a file does not use becomes the line that brings it in, at its place."""

from __future__ import annotations

from omrlang import syntax as s
from omrlang.diagnostics import Edit, Fix, Reporter
from omrlang.parse import parse
from omrlang.source import SourceFile, Span

HEAD = (s.Version, s.Amend, s.Because)
"""Statements that stand before a file's `use` lines."""


def use_of(module: str, file: SourceFile) -> Fix:
    """``use std.MODULE`` after the last `use` line, else after the file's head, else before its first statement.

    >>> from pathlib import Path
    >>> fix = use_of("gpus", SourceFile(Path("x.omr"), "use std.models  # sizes\\n\\nseed = 7"))
    >>> fix.edits[0].span.start, fix.edits[0].text
    (24, 'use std.gpus\\n')
    """
    line = f"use std.{module}"
    statements = parse(file, Reporter()).statements
    uses = [statement for statement in statements if isinstance(statement, s.Use)]
    head = [statement for statement in statements if isinstance(statement, HEAD)]
    if uses:
        edit = _after(file, uses[-1].span, "", line)
    elif head:
        edit = _after(file, head[-1].span, "\n", line)
    else:
        edit = _insertion(file, _first(file, statements), f"{line}\n\n")
    return Fix(f"add `{line}`", (edit,))


def _after(file: SourceFile, span: Span, gap: str, line: str) -> Edit:
    """Below the line on which a statement ends, and so below what is said beside it."""
    end = file.text.find("\n", span.end)
    if end < 0:
        return _insertion(file, len(file.text), f"\n{gap}{line}\n")
    return _insertion(file, end + 1, f"{gap}{line}\n")


def _first(file: SourceFile, statements: tuple[s.Statement, ...]) -> int:
    """Where the first statement begins, with the comment that stands right above it; what is apart is the file's."""
    start = statements[0].span.start if statements else 0
    while above := file.text[:start].splitlines(keepends=True):
        if not above[-1].startswith("#"):
            break
        start -= len(above[-1])
    return start


def _insertion(file: SourceFile, at: int, text: str) -> Edit:
    return Edit(Span(file, at, at), text)
