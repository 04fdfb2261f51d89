"""Text to syntax tree. Lark types stop at this package's edge.

A line with a letter in column 0 starts a statement; each statement is parsed alone, so one bad block hides no other.
"""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import lark
from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from omrlang import syntax as s
from omrlang.diagnostics import Diagnostic, Reporter
from omrlang.parse.complaints import RESERVED, report_characters, report_token
from omrlang.parse.literals import MAX_NUMBER
from omrlang.parse.tree import (
    CONTINUES,
    MAX_DEPTH,
    BracketTooDeep,
    Builder,
    Newlines,
    TooDeep,
)
from omrlang.source import SourceFile, Span

MAX_CHARACTERS = 4_000_000
_CONTINUATION_WORDS = {word.lower() for word in CONTINUES}
# A long text, a text, a comment, or the start of a line with a letter in column 0.
_PIECES = re.compile(
    r'(?P<text>"""[\s\S]*?"""|"(?:\\[^\n]|[^"\\\n])*")|(?P<comment>\#[^\n]*)|(?P<start>^[A-Za-z_]\w*)',
    re.MULTILINE,
)
# The name that a statement seems to define: `use std.x`, `let x`, `KIND x`; `amend` stands for all of its file's names.
_DEFINES = re.compile(r"(amend)\b|use[ \t]+std\.(\w+)|\w+[ \t]+([A-Za-z_]\w*)")


def parse(file: SourceFile, reporter: Reporter) -> s.File:
    """The statements of a file; what cannot be read is reported and left out.

    >>> reporter = Reporter()
    >>> parse(SourceFile(Path("x.omr"), "let n = 1 +\\nseed = 7"), reporter).statements[0].name.id
    'seed'
    >>> [item.code for item in reporter.items]
    ['E101']
    """
    tree, found = _parsed(file)
    for item in found:
        reporter.report(item)
    return tree


@lru_cache(maxsize=128)
def _parsed(file: SourceFile) -> tuple[s.File, tuple[Diagnostic, ...]]:
    """A text is parsed once, however many variants and views are made of it: the library is most of what a recipe uses."""
    reporter = Reporter()
    tree = _file(file, reporter)
    return tree, tuple(reporter.items)


def _file(file: SourceFile, reporter: Reporter) -> s.File:
    if len(file.text) > MAX_CHARACTERS:
        message = f"the file has {len(file.text):,} characters; the most is {MAX_CHARACTERS:,}"
        reporter.error("E106", message, Span(file, 0, 0))
        return s.File(file, (), ())
    comments, starts = _scan(file)
    _check_head(file, starts, reporter)
    statements: list[s.Statement] = []
    broken: list[str] = []
    for start, end in pairwise([*starts, len(file.text)]):
        statement = _statement(file, start, end, reporter)
        if statement is not None:
            statements.append(statement)
        elif found := _DEFINES.match(file.text, start):
            broken.append(found[found.lastindex or 0])
    return s.File(file, tuple(statements), tuple(comments), frozenset(broken))


def parse_expression(file: SourceFile, start: int) -> s.Expr | None:
    """What stands in a text from ``start`` on, as one expression, as in ``--set path=value``; None if it is none."""
    reporter = Reporter()
    head = "let x = "
    statement = _parse_one(file, head + file.text[start:], start - len(head), reporter)
    return statement.value if isinstance(statement, s.Let) and not reporter.items else None


@lru_cache(maxsize=1024)
def parse_statement(file: SourceFile, start: int, end: int) -> s.Statement | None:
    """The statement between two offsets of a file without mistakes; None where there is one."""
    return _statement(file, start, end, Reporter())


def statement_starts(file: SourceFile) -> list[int]:
    """The offsets at which statements start, whether or not they can be read."""
    return _scan(file)[1]


def _scan(file: SourceFile) -> tuple[list[s.Comment], list[int]]:
    """The comments, and the offsets at which statements start."""
    comments: list[s.Comment] = []
    starts: list[int] = []
    for match in _PIECES.finditer(file.text):
        if match.lastgroup == "comment":
            span = Span(file, match.start(), match.end())
            comments.append(s.Comment(span, match.group().rstrip()))
        elif match.lastgroup == "start" and match.group() not in _CONTINUATION_WORDS:
            starts.append(match.start())
    return comments, starts


def _check_head(file: SourceFile, starts: list[int], reporter: Reporter) -> None:
    """Nothing but comments may stand before the first statement."""
    head = file.text[: starts[0] if starts else len(file.text)]
    head = re.sub(r"#[^\n]*", lambda comment: " " * len(comment[0]), head)
    stray = re.search(r"\S[^\n]*", head)
    if stray is not None:
        message = "a statement starts with a letter at the beginning of a line"
        reporter.error("E108", message, Span(file, stray.start(), stray.end()))


def _statement(file: SourceFile, start: int, end: int, reporter: Reporter) -> s.Statement | None:
    """The statement between two offsets, or None after a report."""
    return _parse_one(file, file.text[start:end], start, reporter)


def _parse_one(file: SourceFile, text: str, start: int, reporter: Reporter) -> s.Statement | None:
    """A statement; ``start`` is where its text begins in the file."""
    parser, builder, newlines = _parser()
    builder.begin(file, start, reporter)
    try:
        return cast(s.Statement, parser.parse(text))
    except UnexpectedCharacters as error:
        report_characters(file, start + cast(int, error.pos_in_stream), reporter)
    except UnexpectedToken as error:
        report_token(builder, error, newlines, reporter)
        if error.token.type == "NEWLINE" and not newlines.stack:
            # What stands above the line that was reported may well be a whole statement.
            return _parse_one(file, text[: error.token.start_pos], start, Reporter())
    except TooDeep as error:
        reporter.error(
            "E105", f"brackets or operators are nested over {MAX_DEPTH} deep", error.span
        )
    except BracketTooDeep as error:
        message = f"brackets or operators are nested over {MAX_DEPTH} deep"
        reporter.error("E105", message, builder.span([error.token]))
    finally:
        builder.end()
    return None


@lru_cache(maxsize=1)
def _parser() -> tuple[Lark, Builder, Newlines]:
    """The parser, from the cached table where there is one."""
    grammar = (Path(__file__).parents[1] / "grammar.lark").read_text()
    builder, newlines = Builder(), Newlines()
    parser = Lark(
        grammar,
        parser="lalr",
        lexer="basic",
        keep_all_tokens=True,
        maybe_placeholders=False,
        postlex=cast(Any, newlines),
        transformer=cast(Any, builder),
        cache=_table_path(grammar) or False,
    )
    return parser, builder, newlines


def _table_path(grammar: str) -> str:
    """Where the table is kept for the next start; empty where nothing can be written."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omrlang"
        base.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home folder, or one that cannot be written
        return ""
    key = sha256(f"{sys.version}\n{lark.__version__}\n{grammar}".encode()).hexdigest()[:16]
    return str(base / f"grammar-{key}.bin") if os.access(base, os.W_OK) else ""


__all__ = [
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "MAX_NUMBER",
    "RESERVED",
    "parse",
    "parse_expression",
    "parse_statement",
    "statement_starts",
]
