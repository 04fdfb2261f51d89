"""Diagnostics to SARIF 2.1.0, the form in which code hosts and editors take findings of any tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, TypeAlias
from urllib.parse import quote

from omrlang.diagnostics import CODES, Code, Diagnostic, Fix
from omrlang.render.data import Place, place
from omrlang.source import Span

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)

Json: TypeAlias = dict[str, Any]


def sarif(found: Sequence[Diagnostic], omr_version: str) -> Json:
    """One run of ``omr`` with the rules that it found something for."""
    codes = sorted({item.code for item in found})
    driver = {
        "name": "omr",
        "version": omr_version,
        "rules": [_rule(CODES[code]) for code in codes],
    }
    results = [_result(item, codes.index(item.code)) for item in found]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: Code) -> Json:
    level = "error" if code.code.startswith("E") else "warning"
    return {
        "id": code.code,
        "name": code.slug,
        "shortDescription": {"text": code.summary},
        "help": {"text": f"`omr explain {code.code}` says what it means, with an example and why."},
        "defaultConfiguration": {"level": level},
    }


def _result(item: Diagnostic, rule: int) -> Json:
    text = f"{item.message}\n{item.hint}" if item.hint else item.message
    result: Json = {
        "ruleId": item.code,
        "ruleIndex": rule,
        "level": item.severity,
        "message": {"text": text},
        "locations": [{"physicalLocation": _location(item.span)}],
    }
    if item.related:
        result["relatedLocations"] = [
            {"id": number, "physicalLocation": _location(span), "message": {"text": note}}
            for number, (span, note) in enumerate(item.related)
        ]
    if item.fix:
        result["fixes"] = [_fix(item.fix)]
    return result


def _location(span: Span) -> Json:
    return {"artifactLocation": {"uri": _uri(span)}, "region": _region(place(span))}


def _region(at: Place) -> Json:
    return {
        "startLine": at.start.line,
        "startColumn": at.start.column,
        "endLine": at.end.line,
        "endColumn": at.end.column,
    }


def _fix(fix: Fix) -> Json:
    replacements = [
        {"deletedRegion": _region(place(edit.span)), "insertedContent": {"text": edit.text}}
        for edit in fix.edits
    ]
    change = {"artifactLocation": {"uri": _uri(fix.edits[0].span)}, "replacements": replacements}
    return {"description": {"text": fix.message}, "artifactChanges": [change]}


def _uri(span: Span) -> str:
    """A relative path stays relative to where the command was typed, as code hosts want it."""
    path = PurePath(span.file.path)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
