"""Lark's errors to diagnostics: what was met, what was expected, which bracket is open."""

from __future__ import annotations

from lark import Token
from lark.exceptions import UnexpectedToken

from omrlang.diagnostics import Reporter, did_you_mean, listed
from omrlang.parse.tree import Builder, Newlines
from omrlang.source import SourceFile, Span

RESERVED = frozenset(
    {"from", "on", "with", "and", "or", "not", "in", "is", "as", "use", "let", "amend", "because"}
    | {"omr", "true", "false", "none", "matches"}
)
_TERMINALS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a text",
    "LONG_STRING": "a text",
    "NEWLINE": "the end of the line",
    "COMPARE": "a comparison",
    "$END": "the end of the statement",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "EQUAL": "`=`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "DOT": "`.`",
    "FROM": "`from`",
    "WITH": "`with`",
    "ON": "`on`",
    "BECAUSE": "`because`",
    "AS": "`as`",
    "FROM_KEY": "a name",
}
_HABITS = {
    "'": 'a text stands in `"…"`',
    ";": "a newline or `,` separates settings",
    "&": "`and` is written out",
    "|": "`or` is written out",
    "!": "`not` is written out",
    "%": "a percentage is one number, such as `70%`",
    "^": "there are no powers; write the number out",
}
"""What other languages write with a character, and this one otherwise."""
_OPERATORS = {
    "PLUS",
    "MINUS",
    "STAR",
    "SLASH",
    "COMPARE",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "MATCHES",
}
_OPERATORS |= {"DOT", "LPAR", "LSQB", "__ANON_0", "NAME"}
_VALUE_STARTS = {"NAME", "NUMBER", "STRING", "LSQB", "LPAR"}


def report_characters(file: SourceFile, at: int, reporter: Reporter) -> None:
    character = file.text[at]
    if character == '"':
        long = file.text[max(0, at - 2) : at + 1] == '"""'
        at = at - 2 if long else at
        end = file.text.find("\n", at)
        span = Span(file, at, len(file.text) if end < 0 else end)
        mark = '`"""`' if long else '`"`'
        hint = None if long else 'a text over several lines stands in `"""`'
        reporter.error("E102", f"the text opened here has no closing {mark}", span, hint)
        return
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    hint = _HABITS.get(character)
    reporter.error("E101", f"unexpected character `{shown}`", Span(file, at, at + 1), hint)


def report_token(
    builder: Builder, error: UnexpectedToken, newlines: Newlines, reporter: Reporter
) -> None:
    token: Token = error.token
    expected = set(error.accepts or error.expected)
    if token.type == "$END":
        if newlines.stack:
            opened = newlines.stack[-1]
            reporter.error("E103", f"`{opened}` is never closed", builder.span([opened]))
            return
        span = builder.after_last(newlines.last)
        hint = _hint(expected)
        reporter.error("E101", "the statement ends too early", span, hint)
        return
    span = builder.span([token])
    if token.type == "NEWLINE":
        span = builder.after_last(newlines.last)
        if newlines.stack or "NEWLINE" in expected:
            message = "the line ends too early"
        else:
            message = "a statement ends with its line; an indented line cannot start one"
            span = builder.after_newline(token)
        reporter.error("E101", message, span, _hint(expected))
        return
    if str(token) in RESERVED and "NAME" in expected:
        reporter.error("E101", f"`{token}` is a reserved word and no name", span, _hint(expected))
        return
    words = [name.lower() for name in expected if name.lower() in RESERVED]
    near = did_you_mean(str(token), words) if token.type == "NAME" else None
    hint = near or _habit(token, expected) or _hint(expected)
    reporter.error("E101", f"unexpected `{_short(token)}`", span, hint)


def _habit(token: Token, expected: set[str]) -> str | None:
    """What is meant by an operator at a place where this language takes none."""
    after_value = "AND" in expected
    if token.type == "EQUAL" and after_value:
        return "`==` compares; a setting stands on a line of its own or after `,`"
    if token.type == "COMPARE" and after_value:
        return "comparisons do not chain: `len(answer) in 1 .. 50`, or two with `and`"
    if token.type == "COMPARE" and str(token) == ">" and "NUMBER" in expected:
        return "`!=` is unequal"
    if token.type == "DOT" and "NUMBER" in expected:
        return "a number starts with a digit, such as `0.5`"
    return None


def _hint(expected: set[str]) -> str | None:
    names = set(expected)
    words = []
    if names >= _VALUE_STARTS:
        words.append("a value")
        names -= _VALUE_STARTS | {
            "LONG_STRING",
            "TRUE",
            "FALSE",
            "NONE",
            "MINUS",
            "NOT",
            "FROM_KEY",
        }
    if len(names) > 6 and {"PLUS", "MINUS"} & names:
        names -= _OPERATORS
    words += sorted({_TERMINALS.get(name, f"`{name.lower()}`") for name in names})
    return f"expected {listed(words, 'or')}" if 0 < len(words) <= 6 else None


def _short(token: str) -> str:
    first = token.split("\n")[0]
    return first if len(first) <= 40 else f"{first[:37]}…"
