"""Offsets of a text become positions as an editor counts them, and back. Alone knows code units."""

from __future__ import annotations

from lsprotocol.types import Position, PositionEncodingKind, Range

from omrlang.source import SourceFile, Span

UTF16 = PositionEncodingKind.Utf16
_CODECS: dict[str, tuple[str, int]] = {
    "utf-8": ("utf-8", 1),
    "utf-16": ("utf-16-le", 2),
    "utf-32": ("utf-32-le", 4),
}
"""By encoding: a codec, and how many of its bytes an editor counts as one character."""


def to_position(file: SourceFile, offset: int, encoding: str = UTF16) -> Position:
    """Line and character, both from 0.

    >>> from pathlib import Path
    >>> file = SourceFile(Path("x.omr"), "a\\n😀b")
    >>> to_position(file, 3), to_offset(file, Position(1, 2))
    (1:2, 3)
    """
    line, column = file.position(offset)
    before = file.text[offset - column + 1 : offset]
    return Position(line - 1, _units(before, encoding))


def to_range(span: Span, encoding: str = UTF16) -> Range:
    return Range(
        to_position(span.file, span.start, encoding), to_position(span.file, span.end, encoding)
    )


def to_offset(file: SourceFile, position: Position, encoding: str = UTF16) -> int:
    """The offset of a position; one behind the end of its line or of the text is that end."""
    if position.line >= len(file.line_starts):
        return len(file.text)
    text = file.line(position.line + 1).rstrip("\r")
    units = 0
    for index, character in enumerate(text):
        if units >= position.character:
            return file.line_starts[position.line] + index
        units += _units(character, encoding)
    return file.line_starts[position.line] + len(text)


def _units(text: str, encoding: str) -> int:
    if text.isascii():
        return len(text)
    codec, size = _CODECS[encoding]
    return len(text.encode(codec, "surrogatepass")) // size
