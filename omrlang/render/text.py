"""Diagnostics to text: headline, place, the line with carets, hint."""

from __future__ import annotations

from collections.abc import Sequence

from omrlang.diagnostics import Diagnostic
from omrlang.source import Span

MAX_WIDTH = 160


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """All of them in full, with an empty line between two; ends with a newline unless there are none."""
    return "\n".join(full(diagnostic) for diagnostic in diagnostics)


def full(diagnostic: Diagnostic) -> str:
    """Headline, place, the line with a caret below it, further places, hint."""
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"]
    lines += _excerpt(diagnostic.span, "-->", "")
    for span, note in diagnostic.related:
        lines += _excerpt(span, ":::", note)
    if diagnostic.hint:
        lines.append(f"hint: {diagnostic.hint}")
    return "\n".join(lines) + "\n"


def concise(diagnostic: Diagnostic) -> str:
    """One line: place, code, headline."""
    line, column = diagnostic.span.file.position(diagnostic.span.start)
    path = diagnostic.span.file.path
    return f"{path}:{line}:{column}: {diagnostic.severity}[{diagnostic.code}] {diagnostic.message}"


def _excerpt(span: Span, arrow: str, note: str) -> list[str]:
    line, column = span.file.position(span.start)
    place = f" {arrow} {span.file.path}:{line}:{column}"
    if not span.file.text:
        return [place]
    text = span.file.line(line)
    width = max(1, min(span.end - span.start, len(text) - column + 1))
    text, column, width = _window(text, column, width)
    margin = " " * len(str(line))
    # Tabs keep their width in the line of carets, so that both lines align in any terminal.
    indent = "".join("\t" if character == "\t" else " " for character in text[: column - 1])
    caret = f"{margin} | {indent}{'^' * width}"
    return [place, f"{margin} |", f"{line} | {text}", f"{caret} {note}".rstrip()]


def _window(text: str, column: int, width: int) -> tuple[str, int, int]:
    """The part of a long line that holds the place, with the column in it."""
    text = "".join(c if c == "\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(text) <= MAX_WIDTH:
        return text, column, width
    start = max(0, min(column - 1 - MAX_WIDTH // 4, len(text) - MAX_WIDTH))
    part = text[start : start + MAX_WIDTH]
    shown = ("…" if start else "") + part + ("…" if start + MAX_WIDTH < len(text) else "")
    column = column - start + (1 if start else 0)
    return shown, column, max(1, min(width, len(shown) - column + 1))
