"""Diagnostics to one JSON document: ``omr check --format json``. ``omr schema findings`` is its schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from omrlang import diagnostics as d
from omrlang.source import SourceFile, Span


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Position(_Data):
    """``line`` and ``column`` count from 1, ``offset`` from 0; all in characters (code points)."""

    line: int
    column: int
    offset: int


class Place(_Data):
    """Characters from ``start`` to ``end`` (excluded) of a file."""

    path: str
    start: Position
    end: Position


class Related(_Data):
    message: str
    place: Place


class Edit(_Data):
    """What stands at ``place`` is replaced by ``text``."""

    place: Place
    text: str


class Fix(_Data):
    message: str
    edits: tuple[Edit, ...]


class Finding(_Data):
    """One diagnostic. ``page`` is the name of its page in ``docs/errors``."""

    code: str
    page: str
    severity: d.Severity
    message: str
    hint: str | None = None
    place: Place
    related: tuple[Related, ...] = ()
    fix: Fix | None = None


class Exit(_Data):
    code: int
    reason: Literal["ok", "errors"]


class Findings(_Data):
    """What ``omr check`` found in all the files that it was given, by file and place. A minor version only adds fields."""

    format_version: Literal["1.0"] = "1.0"
    omr_version: str
    findings: tuple[Finding, ...]
    exit: Exit


def findings(found: Sequence[d.Diagnostic], omr_version: str) -> Findings:
    """The document; its exit is 1 if one of them is an error."""
    failed = any(item.severity == "error" for item in found)
    return Findings(
        omr_version=omr_version,
        findings=tuple(map(_finding, found)),
        exit=Exit(code=1, reason="errors") if failed else Exit(code=0, reason="ok"),
    )


def _finding(item: d.Diagnostic) -> Finding:
    return Finding(
        code=item.code,
        page=d.CODES[item.code].page,
        severity=item.severity,
        message=item.message,
        hint=str(item.hint) if item.hint else None,
        place=place(item.span),
        related=tuple(Related(message=text, place=place(span)) for span, text in item.related),
        fix=_fix(item.fix) if item.fix else None,
    )


def _fix(fix: d.Fix) -> Fix:
    edits = tuple(Edit(place=place(edit.span), text=edit.text) for edit in fix.edits)
    return Fix(message=fix.message, edits=edits)


def place(span: Span) -> Place:
    """A span by lines and columns."""
    path = str(span.file.path)
    return Place(path=path, start=_at(span.file, span.start), end=_at(span.file, span.end))


def _at(file: SourceFile, offset: int) -> Position:
    line, column = file.position(offset)
    return Position(line=line, column=column, offset=offset)
