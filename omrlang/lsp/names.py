"""A view becomes every mention of a name in its file, each with the place that defines the name.

What is no mention: a column of the row, a function, a word that is a choice of its setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

from omrlang import declared
from omrlang import syntax as s
from omrlang.declared import Key
from omrlang.functions import COLUMNS
from omrlang.lsp.columns import columns_of
from omrlang.lsp.view import View
from omrlang.scope import Draft, Scope
from omrlang.source import Span


@dataclass(frozen=True, slots=True)
class Target:
    """Where a name is defined: equal for two mentions exactly if they mean the same thing."""

    path: Path
    start: int
    name: str
    kind: str
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Mention:
    span: Span
    target: Target
    defines: bool


def mentions(view: View) -> list[Mention]:
    """In the order of the file's statements, as far as they can be read."""
    return list(_Walk(view).file())


def mention_at(view: View, offset: int) -> Mention | None:
    """What the name at an offset means."""
    found = [item for item in mentions(view) if item.span.start <= offset <= item.span.end]
    return found[0] if found else None


def follow(view: View, scope: Scope, names: Sequence[s.Name]) -> Iterator[Mention]:
    """A dotted name, part for part, up to the thing that it leads to."""
    for name in names:
        target = target_of(view, scope, name.id)
        if target is None:
            return
        span = target.span
        yield Mention(name.span, target, name.span == span and view.path == target.path)
        if name.id not in scope.modules:
            return
        scope = scope.modules[name.id]


def target_of(view: View, scope: Scope, name: str) -> Target | None:
    """What a scope's name stands for."""
    draft = scope.drafts.get(name)
    span = scope.spans.get(name) if draft is None else draft.span
    if span is None:
        return None
    kind = draft.kind if draft else "module" if name in scope.modules else "let"
    return Target(view.place(span), span.start, name, kind, span)


@dataclass(frozen=True, slots=True)
class _Walk:
    """``raw`` says that names are columns of a source's raw rows, of which ``columns`` are known."""

    view: View
    raw: bool = False
    columns: frozenset[str] | None = frozenset()

    def file(self) -> Iterator[Mention]:
        for statement in self.view.tree.statements:
            yield from self._statement(statement)

    def _statement(self, statement: s.Statement) -> Iterator[Mention]:
        match statement:
            case s.Use():
                name = statement.alias or _last(statement.module)
                yield from self._names([name] if name else [])
            case s.Let():
                yield from self._names([statement.name])
                yield from self._expr(statement.value, None)
            case s.Assign():
                yield from self._expr(statement.value, None)
            case s.Declaration():
                yield from self._names([statement.name])
                if statement.base is not None:
                    yield from self._expr(statement.base, declared.base(statement.kind.id))
                draft = self.view.scope.drafts.get(statement.name.id)
                yield from self._body(statement.kind.id, draft, statement)
            case s.Reopen():
                yield from self._names(statement.path)
                draft = self._draft(statement.path)
                kind = draft.kind if draft else statement.path[0].id
                yield from self._body(kind, draft, statement)
            case s.Version() | s.Amend() | s.Because() | s.Allow():
                return
            case _:
                assert_never(statement)

    def _draft(self, path: Sequence[s.Name]) -> Draft | None:
        scope: Scope | None = self.view.scope
        for name in path[:-1]:
            scope = scope.modules.get(name.id) if scope else None
        return scope.drafts.get(path[-1].id) if scope else None

    def _body(
        self, kind: str, draft: Draft | None, statement: s.Declaration | s.Reopen
    ) -> Iterator[Mention]:
        known = declared.clauses(kind)
        for clause in statement.clauses:
            yield from self._expr(clause.value, known.get(clause.word))
        if statement.block is None:
            return
        if kind in ("source", "benchmark"):
            names = columns_of(self.view, draft).names if draft else None
            walk = replace(self, raw=True, columns=None if names is None else frozenset(names))
        else:
            walk = self
        yield from walk._block(statement.block, declared.settings(kind))

    def _block(self, block: s.Block, keys: declared.Keys) -> Iterator[Mention]:
        for entry in block.entries:
            key = declared.at(keys, [name.id for name in entry.path])
            if isinstance(entry, s.Group):
                yield from self._block(entry.block, key.inside if key else {})
            else:
                yield from self._expr(entry.value, key)

    # ---- expressions ---------------------------------------------------------------------------

    def _expr(self, expr: s.Expr, key: Key | None) -> Iterator[Mention]:
        match expr:
            case s.Name() | s.Attr():
                names = _chain(expr)
                if names and not self._means_itself(names[0].id, key):
                    yield from self._names(names)
                elif not names:
                    yield from self._expr(expr.base if isinstance(expr, s.Attr) else expr, None)
            case s.CallExpr():
                yield from self._call(expr, key)
            case s.ListExpr():
                for item in expr.items:
                    yield from self._expr(item.value, key)
                    if item.amount is not None and item.amount.span.text != "all":
                        yield from self._expr(item.amount, None)
            case _:
                for part in _parts(expr):
                    yield from self._expr(part, key)

    def _call(self, call: s.CallExpr, key: Key | None) -> Iterator[Mention]:
        chosen = key.choices.get(call.fn.span.text) if key else None
        known = list(declared.arguments(chosen).values()) if chosen else []
        by_name = {argument.name: argument for argument in known}
        for index, arg in enumerate(call.args):
            inner = key if chosen is None else (known[index] if index < len(known) else None)
            inner = by_name.get(arg.name.id) if arg.name and chosen else inner
            yield from self._expr(arg.value, inner)

    def _means_itself(self, name: str, key: Key | None) -> bool:
        """Whether a name is a column or one of a setting's words, whatever else has that name."""
        if key is None or name in self.view.scope.lets:
            return bool(key and key.over_rows and self.raw and self._is_raw(name))
        if key.over_rows:
            return name in COLUMNS or name == "extra" or (self.raw and self._is_raw(name))
        return name in key.words

    def _is_raw(self, name: str) -> bool:
        return self.columns is None or name in self.columns

    def _names(self, names: Sequence[s.Name]) -> Iterator[Mention]:
        return follow(self.view, self.view.scope, names)


def _chain(expr: s.Expr) -> list[s.Name]:
    """The parts of a dotted name; empty where it begins with something else."""
    names: list[s.Name] = []
    while isinstance(expr, s.Attr):
        names.append(expr.name)
        expr = expr.base
    return [expr, *reversed(names)] if isinstance(expr, s.Name) else []


def _parts(expr: s.Expr) -> Iterator[s.Expr]:
    match expr:
        case s.IndexExpr():
            yield from (expr.base, expr.at)
        case s.UnaryExpr():
            yield expr.x
        case s.BinaryExpr():
            yield from (expr.left, expr.right)
        case s.RangeExpr():
            yield from s.parts_of(expr)
        case s.Paren():
            yield expr.inner
        case _:
            return


def _last(module: s.Expr) -> s.Name | None:
    return module.name if isinstance(module, s.Attr) else None
