"""A stage, whole or only its head, becomes the columns of the rows that its expressions look at."""

from __future__ import annotations

from omrlang import declared
from omrlang import syntax as s
from omrlang.check.conform import conform
from omrlang.check.context import Columns, Place
from omrlang.check.raw import raw_columns
from omrlang.check.stages import columns_in, quiet
from omrlang.diagnostics import Reporter
from omrlang.lsp.view import View
from omrlang.parse import parse
from omrlang.scope import Draft
from omrlang.source import SourceFile


def columns_of(view: View, draft: Draft) -> Columns:
    """Of a source the raw columns, of any other stage those of its input."""
    context = quiet(view.context)
    if draft.kind not in ("source", "benchmark"):
        return columns_in(context, draft)
    bound = draft.clauses.get("from")
    if bound is None:
        return Columns(None, raw=True)
    place = conform(context, bound, declared.clauses("source")["from"].annotation, Place("from"))
    return raw_columns(context, draft, place)


def draft_of(view: View, head: str) -> Draft | None:
    """The stage that is being typed, from its text before the braces."""
    tree = parse(SourceFile(view.path, head), Reporter())
    statement = tree.statements[0] if len(tree.statements) == 1 else None
    if not isinstance(statement, s.Declaration):
        return None
    draft = Draft(statement.kind.id, statement.name.id, statement.name.span, view.scope)
    draft.clauses = {clause.word: view.scope.bind(clause.value) for clause in statement.clauses}
    return draft
