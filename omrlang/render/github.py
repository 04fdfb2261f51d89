"""Diagnostics to GitHub's workflow commands: a line that the Actions runner turns into a mark on the changed file.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from omrlang.diagnostics import Diagnostic
from omrlang.render.data import place

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def github(item: Diagnostic) -> str:
    """``::error file=…,line=…,…,title=E203::message``.

    >>> from pathlib import Path
    >>> from omrlang.source import SourceFile, Span
    >>> span = Span(SourceFile(Path("a,b.omr"), "omr 1"), 0, 3)
    >>> github(Diagnostic("E203", "50% of it", span, hint="x"))
    '::error file=a%2Cb.omr,line=1,col=1,endLine=1,endColumn=4,title=E203::50%25 of it%0Ax'
    """
    at = place(item.span)
    facts = {
        "file": at.path,
        "line": at.start.line,
        "col": at.start.column,
        "endLine": at.end.line,
        "endColumn": at.end.column,
        "title": item.code,
    }
    shown = ",".join(f"{key}={_property(str(value))}" for key, value in facts.items())
    text = f"{item.message}\n{item.hint}" if item.hint else item.message
    return f"::{_COMMANDS[item.severity]} {shown}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
