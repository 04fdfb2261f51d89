"""Diagnostics of a recipe become those of an editor, by the file that they stand in; their fixes become quick fixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from lsprotocol import types as lsp

from omrlang import diagnostics as d
from omrlang.lsp.positions import to_range
from omrlang.lsp.view import View
from omrlang.source import Span

_SEVERITY = {
    "error": lsp.DiagnosticSeverity.Error,
    "warning": lsp.DiagnosticSeverity.Warning,
    "note": lsp.DiagnosticSeverity.Information,
}


def problems(
    views: Iterable[View], uri: Callable[[Path], str], encoding: str
) -> Mapping[Path, list[lsp.Diagnostic]]:
    """What is wrong in each file, said once though several recipes use the file. A file that is right has an empty list."""
    found: dict[Path, dict[tuple[str, int, int, str], lsp.Diagnostic]] = {}
    for view in views:
        found.setdefault(view.path, {})
        for item in view.checked[1]:
            key = (item.code, item.span.start, item.span.end, item.message)
            found.setdefault(view.place(item.span), {})[key] = _problem(view, item, uri, encoding)
    return {path: list(items.values()) for path, items in found.items()}


def _problem(
    view: View, item: d.Diagnostic, uri: Callable[[Path], str], encoding: str
) -> lsp.Diagnostic:
    return lsp.Diagnostic(
        range=to_range(_seen(item.span), encoding),
        message=item.message if item.hint is None else f"{item.message}\n{item.hint}",
        severity=_SEVERITY[item.severity],
        code=item.code,
        source="omr",
        related_information=[
            lsp.DiagnosticRelatedInformation(
                lsp.Location(uri(view.place(span)), to_range(span, encoding)), note
            )
            for span, note in item.related
        ],
    )


def _seen(span: Span) -> Span:
    """At least one character, and of a statement over many lines the first: an editor underlines all of it."""
    line_end = span.file.text.find("\n", span.start)
    end = span.end if line_end < 0 else min(span.end, line_end)
    return Span(span.file, span.start, max(end, min(span.start + 1, len(span.file.text))))


def fixes(
    view: View, place: lsp.Range, uri: Callable[[Path], str], encoding: str
) -> Iterator[lsp.CodeAction]:
    """The fixes of what is wrong at a place."""
    for item in view.checked[1]:
        fix = item.fix
        if fix is None or view.place(item.span) != view.path:
            continue
        problem = _problem(view, item, uri, encoding)
        if not _meet(problem.range, place):
            continue
        edits = [lsp.TextEdit(to_range(edit.span, encoding), edit.text) for edit in fix.edits]
        path = view.place(fix.edits[0].span)
        yield lsp.CodeAction(
            title=fix.message[:1].upper() + fix.message[1:],
            kind=lsp.CodeActionKind.QuickFix,
            diagnostics=[problem],
            is_preferred=True,
            edit=lsp.WorkspaceEdit(changes={uri(path): edits}),
        )


def _meet(one: lsp.Range, other: lsp.Range) -> bool:
    return one.start <= other.end and other.start <= one.end
