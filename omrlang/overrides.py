"""``--set PATH=VALUE`` texts become the last layer of a program of drafts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omrlang import syntax as s
from omrlang.diagnostics import Reporter, did_you_mean
from omrlang.parse import RESERVED, parse_expression
from omrlang.scope import Bound, Scope, look_up, put
from omrlang.source import SourceFile, Span

CLAUSES = ("from", "with", "on")


def override(scope: Scope, texts: Sequence[str], reporter: Reporter) -> None:
    """Set each ``path=value``: a let, the seed, or a setting or clause of something that is declared."""
    for text in texts:
        _override(scope, text, reporter)


def _override(scope: Scope, text: str, reporter: Reporter) -> None:
    path_text, sign, value_text = text.partition("=")
    file = SourceFile(Path("--set"), text)
    parts = [part.strip() for part in path_text.split(".")]
    if not sign or not all(map(_is_key, parts)):
        reporter.error("E402", "an override is `path=value`", Span(file, 0, len(text)))
        return
    value = _value(scope, file, value_text, len(path_text) + 1)
    _apply(scope, _names(file, path_text), _bound(scope, value), reporter)


def _is_key(word: str) -> bool:
    return word.isidentifier() and (word not in RESERVED or word in CLAUSES)


def _bound(scope: Scope, value: s.Expr) -> Bound:
    found = scope.bind(value)
    return Bound(found.expr, scope, "set")


def _value(scope: Scope, file: SourceFile, text: str, start: int) -> s.Expr:
    """The value as an expression; what is none, or names nothing, is a text."""
    expr = parse_expression(file, start)
    span = Span(file, start, start + len(text))
    is_word = isinstance(expr, s.Name) and expr.id in ("default", "unpublished")
    if expr is None or (
        isinstance(expr, s.Name | s.Attr) and not is_word and look_up(scope, expr) is None
    ):
        return s.Text(span, text.strip())
    return expr


def _names(file: SourceFile, path: str) -> list[s.Name]:
    names, at = [], 0
    for part in path.split("."):
        lead = len(part) - len(part.lstrip())
        names.append(s.Name(Span(file, at + lead, at + lead + len(part.strip())), part.strip()))
        at += len(part) + 1
    return names


def _apply(scope: Scope, names: list[s.Name], value: Bound, reporter: Reporter) -> None:
    first, *rest = names
    if first.id in scope.modules and rest:
        _apply(scope.modules[first.id], rest, value, reporter)
    elif first.id in scope.drafts and rest:
        draft = scope.drafts[first.id]
        if rest[0].id in CLAUSES:
            draft.clauses[rest[0].id] = value
            draft.clause_spans[rest[0].id] = value.expr.span
        else:
            put(draft.settings, rest, value)
    elif first.id == "budget" and rest:
        put(scope.budget, rest, value)
    elif first.id in scope.lets and not rest:
        scope.lets[first.id] = value
    elif first.id == "seed" and not rest:
        scope.seed = value
    else:
        _report(scope, first, bool(rest), reporter)


def _report(scope: Scope, name: s.Name, has_more: bool, reporter: Reporter) -> None:
    if name.id in scope.drafts:
        hint = f"`{name.id}.KEY=…` sets one of its settings"
        reporter.error("E402", f"`{name.id}` is no setting", name.span, hint)
        return
    known = [*scope.drafts, *scope.modules, "budget"] if has_more else [*scope.lets, "seed"]
    near = did_you_mean(name.id, known)
    reporter.error("E402", f"unknown name `{name.id}`", name.span, near)
