"""Recipes become coloured words: the Pygments lexer. Its words are the language's own (``words.py``)."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import (
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    Whitespace,
)

from omrlang.types import DENOMINATORS, UNITS
from omrlang.words import CALLED, CLAUSES, CONSTANTS, JOINING, KINDS, OPERATORS, STATEMENTS

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NUMBER = r"\$?[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?(?:[kMBT]|[KMG]i)?%?"


class OmrLexer(RegexLexer):  # type: ignore[misc]  # Pygments has no types
    """Colours ``.omr`` recipes."""

    name = "omr"
    aliases: ClassVar[list[str]] = ["omr"]
    filenames: ClassVar[list[str]] = ["*.omr"]
    mimetypes: ClassVar[list[str]] = ["text/x-omr"]
    url = "https://pypi.org/project/omrlang/"

    tokens: ClassVar[dict[str, list[object]]] = {
        "root": [
            (r"\n", Whitespace),
            (r"[ \t\r\f]+", Whitespace),
            (r"#[^\n]*", Comment.Single),
            (r'"""[\s\S]*?"""', String.Double),
            (r'"(?:\\[^\n]|[^"\\\n])*"', String),
            (
                words(KINDS, prefix="^", suffix=r"([ \t]+)([A-Za-z_]\w*)"),
                bygroups(Keyword.Declaration, Whitespace, Name.Class),
            ),
            (
                r"^(let)([ \t]+)([A-Za-z_]\w*)",
                bygroups(Keyword.Declaration, Whitespace, Name.Constant),
            ),
            (words(tuple(STATEMENTS), prefix="^", suffix=r"\b"), Keyword.Namespace),
            (
                rf"({_NAME}(?:\.{_NAME})*)([ \t]*)(=)(?!=)",
                bygroups(Name.Attribute, Whitespace, Operator),
            ),
            (rf"({_NAME}(?:\.{_NAME})*)([ \t]*)(?=\{{)", bygroups(Name.Attribute, Whitespace)),
            (words((*CLAUSES, *JOINING), suffix=r"\b"), Keyword),
            (words(OPERATORS, suffix=r"\b"), Operator.Word),
            (words(CONSTANTS, suffix=r"\b"), Keyword.Constant),
            (words(CALLED, suffix=r"\b"), Name.Builtin),
            (rf"({_NAME})([ \t]*)(?=\()", bygroups(Name.Function, Whitespace)),
            (
                rf"({_NUMBER})([ \t]+)({'|'.join(sorted(UNITS, key=len, reverse=True))})\b",
                bygroups(Number, Whitespace, Keyword.Type),
            ),
            (rf"(/)([ \t]*)({'|'.join(DENOMINATORS)})\b", bygroups(Operator, Text, Keyword.Type)),
            (_NUMBER, Number),
            (_NAME, Name),
            (r"==|!=|<=|>=|\.\.|[-+*/<>=.:]", Operator),
            (r"[][(){},]", Punctuation),
        ]
    }
