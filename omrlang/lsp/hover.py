"""A cursor becomes what is told about the word there: a setting, a clause, a choice, a function, a column, a name."""

from __future__ import annotations

import sys

from lsprotocol.types import Hover, MarkupContent, MarkupKind, Position, Range

from omrlang import declared
from omrlang.describe import choice_text, function_text, setting_text
from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.lsp.cursor import Cursor, cursor_at
from omrlang.lsp.definition import meaning
from omrlang.lsp.names import Target
from omrlang.lsp.positions import to_offset, to_position
from omrlang.lsp.standing import Wanted, kind_of, wanted
from omrlang.lsp.view import View
from omrlang.parse import statement_starts
from omrlang.scope import STAGES
from omrlang.source import SourceFile
from omrlang.types import METRIC_DOCS, Expect
from omrlang.words import CLAUSES, INSTEAD, KINDS, STATEMENTS

MAX_LINES = 16


def hover(view: View, position: Position, encoding: str) -> Hover | None:
    """What is known about the word at a position; None where it is no word of the language."""
    offset = to_offset(view.source, position, encoding)
    cursor = cursor_at(view.source, offset)
    if cursor.standing in ("text", "comment") or cursor.end == cursor.start:
        return None
    told = _told(view, cursor, view.source.text[cursor.start : cursor.end])
    if told is None:
        return None
    start = to_position(view.source, cursor.start, encoding)
    end = to_position(view.source, cursor.end, encoding)
    return Hover(MarkupContent(MarkupKind.Markdown, told), Range(start, end))


def _told(view: View, cursor: Cursor, word: str) -> str | None:
    if cursor.standing == "start":
        return _of_kind(word) or _of_name(view, cursor)
    if word in CLAUSES and len(cursor.frames) == 1:
        key = declared.clauses(kind_of(view, cursor)).get(word)
        return setting_text(key) if key else None
    want = wanted(view, cursor)
    if cursor.standing == "key":
        return _of_key(declared.at(want.keys, (*cursor.chain, word)))
    return _of_value(view, cursor, word, want)


def _of_key(key: declared.Key | None) -> str | None:
    return setting_text(key) if key else None


def _of_value(view: View, cursor: Cursor, word: str, want: Wanted) -> str | None:
    argument = want.keys.get(word)
    if argument is not None and cursor.frame.bracket == "(" and _is_named(view, cursor):
        return setting_text(argument)
    if want.is_row and not cursor.chain:
        if word in FUNCTIONS:
            return function_text(FUNCTIONS[word])
        if word in COLUMNS:
            return f"the column `{word}`, {COLUMNS[word]}"
    if want.key is not None and Expect in want.key.branches:
        for metric, doc in METRIC_DOCS.items():
            if word == metric:
                return f"the number `{metric}`: {doc}"
    if word in INSTEAD and not want.is_row and not cursor.chain:
        return INSTEAD[word]
    choices = want.key.choices if want.key else {}
    if word in choices:
        return choice_text(word, choices[word])
    return _of_name(view, cursor)


def _is_named(view: View, cursor: Cursor) -> bool:
    after = view.source.text[cursor.end : cursor.end + 3].lstrip()
    return after.startswith("=") and not after.startswith("==")


def _of_kind(word: str) -> str | None:
    if word in STATEMENTS:
        return f"```omr\n{STATEMENTS[word]}\n```"
    if word not in KINDS:
        return None
    model = declared.model_of(word)
    # A stage kind is told by its module, a thing by its class.
    told = sys.modules[model.__module__] if model and word in STAGES else model
    doc = ((told.__doc__ if told else None) or "").strip().replace("``", "`")
    clauses = [f"- `{key.name}`: {key.setting.doc}" for key in declared.clauses(word).values()]
    keys = ", ".join(f"`{name}`" for name in declared.settings(word))
    return "\n\n".join(part for part in (doc, "\n".join(clauses), f"settings: {keys}") if part)


def _of_name(view: View, cursor: Cursor) -> str | None:
    target = meaning(view, cursor)
    return None if target is None else declaration_text(view, target)


def declaration_text(view: View, target: Target) -> str:
    """The declaration of a name as it is written, with the comment above it."""
    if target.kind == "module":
        module = view.scope.modules.get(target.name)
        names = ", ".join(f"`{name}`" for name in module.names()[:40]) if module else ""
        return f"module `{target.name}`: {names}"
    text, comment = written(target.span.file, target.start)
    lines = text.splitlines()
    shown = "\n".join([*lines[:MAX_LINES], *(["  …"] if len(lines) > MAX_LINES else [])])
    return "\n\n".join(part for part in (f"```omr\n{shown}\n```", comment) if part)


def written(file: SourceFile, start: int) -> tuple[str, str]:
    """The statement that defines the name at ``start``, and the comment right above it."""
    edges = [*statement_starts(file), len(file.text)]
    begin = max(edge for edge in edges if edge <= start)
    end = min(edge for edge in edges if edge > start)
    kept = [line.rstrip() for line in file.text[begin:end].splitlines()]
    while kept and (not kept[-1].strip() or kept[-1].startswith("#")):
        kept.pop()
    above = file.text[:begin].rstrip("\n").splitlines() if file.text[:begin].endswith("\n") else []
    comment: list[str] = []
    blank = file.text[:begin].endswith("\n\n")
    while above and above[-1].startswith("#") and not blank:
        comment.insert(0, above.pop().lstrip("# "))
    return "\n".join(kept), " ".join(comment)
