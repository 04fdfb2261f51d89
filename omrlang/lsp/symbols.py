"""A view becomes the outline of its file: modules, values, declarations with their settings."""

from __future__ import annotations

from collections.abc import Iterator

from lsprotocol.types import DocumentSymbol, SymbolKind

from omrlang import syntax as s
from omrlang.lsp.positions import to_range
from omrlang.lsp.view import View
from omrlang.scope import STAGES
from omrlang.source import Span


def symbols(view: View, encoding: str) -> list[DocumentSymbol]:
    """In the order of the file, as far as it can be read."""
    found = (_symbol(statement, encoding) for statement in view.tree.statements)
    return [item for item in found if item is not None]


def _symbol(statement: s.Statement, encoding: str) -> DocumentSymbol | None:
    match statement:
        case s.Use():
            module, span = statement.module.span.text, (statement.alias or statement.module).span
            return _made(module, SymbolKind.Module, statement.span, span, encoding, "use")
        case s.Let() | s.Assign():
            name, value = statement.name, statement.value.span.text.split("\n")[0]
            kind = SymbolKind.Constant
            return _made(name.id, kind, statement.span, name.span, encoding, value)
        case s.Declaration():
            kind = SymbolKind.Class if statement.kind.id in STAGES else SymbolKind.Object
            name = statement.name
            made = _made(name.id, kind, statement.span, name.span, encoding, statement.kind.id)
            made.children = [*_entries(statement.block, encoding)]
            return made
        case s.Reopen():
            span = statement.path[0].span.to(statement.path[-1].span)
            kind = SymbolKind.Class
            made = _made(span.text, kind, statement.span, span, encoding, "changed")
            made.children = [*_entries(statement.block, encoding)]
            return made
        case _:
            return None


def _entries(block: s.Block | None, encoding: str) -> Iterator[DocumentSymbol]:
    for entry in block.entries if block else ():
        span = entry.path[0].span.to(entry.path[-1].span)
        detail = "" if isinstance(entry, s.Group) else entry.value.span.text.split("\n")[0]
        made = _made(span.text, SymbolKind.Property, entry.span, span, encoding, detail)
        if isinstance(entry, s.Group):
            made.children = [*_entries(entry.block, encoding)]
        yield made


def _made(
    name: str, kind: SymbolKind, whole: Span, name_span: Span, encoding: str, detail: str
) -> DocumentSymbol:
    return DocumentSymbol(
        name=name,
        kind=kind,
        range=to_range(whole, encoding),
        selection_range=to_range(name_span, encoding),
        detail=detail,
    )
