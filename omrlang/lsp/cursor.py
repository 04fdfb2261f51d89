"""A text and an offset become what stands around it: statement, clause, braces, key, call. Never fails.

Works on words and brackets, not on the syntax tree, because at the place where somebody types there is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from omrlang.parse import statement_starts
from omrlang.source import SourceFile
from omrlang.words import CLAUSES, OPERATORS

Standing: TypeAlias = Literal["start", "head", "key", "value", "text", "comment"]
"""``start`` is the first word of a statement, ``head`` before its braces where a clause may begin."""

_TOKENS = re.compile(
    r'(?P<text>"""[\s\S]*?(?:"""|\Z)|"(?:\\[^\n]|[^"\\\n])*(?:"|(?=\n)|\Z))'
    r"|(?P<comment>\#[^\n]*)"
    r"|(?P<number>\$?[0-9]\w*(?:\.[0-9]\w*)?%?)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<line>\n)"
    r"|(?P<mark>==|!=|<=|>=|\.\.|[^\w\s])"
)
_WORD = re.compile(r"[^\W\d]\w*\Z")
_CHAIN = re.compile(r"(?:[^\W\d]\w*[ \t]*\.[ \t]*)+\Z")


@dataclass(slots=True)
class Frame:
    """What an open bracket belongs to. The outermost frame is the statement, its ``bracket`` is empty.

    ``head`` is the dotted key or function before the bracket. ``key`` is what a value is being given to (for the statement
    the clause word, or ``=``), ``index`` counts commas, ``amount`` says that a colon stood before. ``given`` are all keys of
    this bracket, also those behind the cursor.
    """

    bracket: str
    head: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    index: int = 0
    amount: bool = False
    given: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cursor:
    """``words`` are the names before the first clause (``sample``, ``traces``), ``frames`` the open brackets, outermost first.

    ``word`` is what is written of the name at the cursor from ``start`` to the cursor, ``end`` is where that name ends, ``chain``
    the names before its dots. ``operand`` says that a whole value stands right before, ``number`` that it is a number.
    ``head`` is where the statement's text before its braces lies.
    """

    standing: Standing
    words: tuple[str, ...]
    frames: tuple[Frame, ...]
    chain: tuple[str, ...]
    word: str
    start: int
    end: int
    operand: bool
    number: bool
    head: tuple[int, int]

    @property
    def frame(self) -> Frame:
        return self.frames[-1]


def cursor_at(file: SourceFile, offset: int) -> Cursor:
    """What stands around ``offset``.

    >>> from pathlib import Path
    >>> text = "sample s from rows { temperature = 1.0, ma"
    >>> found = cursor_at(SourceFile(Path("x.omr"), text), len(text))
    >>> found.standing, found.words, found.word, found.frame.given
    ('key', ('sample', 's'), 'ma', ['temperature'])
    """
    begin, end = _statement(file, offset)
    return _Walk(file.text, begin, end, offset).cursor()


def _statement(file: SourceFile, offset: int) -> tuple[int, int]:
    """The statement that holds the offset; the text before the first one counts as one."""
    edges = [0, *statement_starts(file), len(file.text) + 1]
    begin, end = next(pair for pair in pairwise(edges) if pair[0] <= offset < pair[1])
    return begin, min(end, len(file.text))


@dataclass(slots=True)
class _Walk:
    """The reading of one statement: what is open at the token at hand."""

    text: str
    begin: int
    end: int
    offset: int
    stack: list[Frame] = field(default_factory=lambda: [Frame("")])
    words: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    last: re.Match[str] | None = None
    braces: int | None = None
    found: Cursor | None = None

    def cursor(self) -> Cursor:
        for token in _TOKENS.finditer(self.text, self.begin, self.end):
            if self.found is None and token.end() >= self.offset:
                self._meet(token)
            self._step(token)
        if self.found is None:
            self.found = self._here(self.offset, self._standing())
        return replace(
            self.found, head=(self.begin, self.end if self.braces is None else self.braces)
        )

    # ---- the cursor ----------------------------------------------------------------------------

    def _meet(self, token: re.Match[str]) -> None:
        """The token that reaches the cursor: it holds it, or begins at or behind it."""
        inside = token.start() < self.offset
        closed = token.lastgroup == "text" and token.end() == self.offset
        if token.lastgroup in ("text", "comment") and inside and not (closed and _closed(token)):
            standing: Standing = "text" if token.lastgroup == "text" else "comment"
            self.found = self._here(token.end(), standing)
        elif token.lastgroup == "name":
            self.found = self._here(
                token.end() if token.start() <= self.offset else self.offset, self._standing()
            )
        elif not inside or token.end() > self.offset:
            self.found = self._here(self.offset, self._standing())

    def _here(self, end: int, standing: Standing) -> Cursor:
        before = _WORD.search(self.text[self.begin : self.offset])
        start = self.begin + before.start() if before else self.offset
        chain = _CHAIN.search(self.text[self.begin : start])
        if len(self.stack) == 1 and self.text[start - 1 : start] in ("", "\n"):
            standing = "start"
        frames = tuple(replace(frame, given=frame.given) for frame in self.stack)
        return Cursor(
            standing=standing,
            words=tuple(self.words),
            frames=frames,
            chain=tuple(re.findall(r"\w+", chain.group())) if chain else (),
            word=self.text[start : self.offset],
            start=start,
            end=max(end, self.offset),
            operand=self._is_operand(),
            number=self._is_operand() and self.last is not None and self.last.lastgroup == "number",
            head=(self.begin, self.end),
        )

    def _standing(self) -> Standing:
        frame = self.stack[-1]
        if self._standing_key():
            return "key"
        if frame.bracket:
            return "value"
        return "value" if frame.key and not self._is_operand() else "head"

    def _standing_key(self) -> bool:
        return self.stack[-1].bracket == "{" and not self.stack[-1].key

    def _is_operand(self) -> bool:
        last = self.last
        if last is None or self._standing_key():
            return False
        if last.lastgroup == "name":
            return last.group() not in (*OPERATORS, *CLAUSES)
        return last.lastgroup in ("text", "number") or last.group() in (")", "]")

    # ---- one token -----------------------------------------------------------------------------

    def _step(self, token: re.Match[str]) -> None:
        word = token.group()
        match token.lastgroup:
            case "comment":
                return
            case "line":
                if self.stack[-1].bracket == "{" and not _goes_on(self.text, token.end(), self.end):
                    self._next_entry()
                return
            case "name":
                self._name(token, word)
            case "mark":
                self._mark(word)
            case _:
                pass
        self.last = token

    def _name(self, token: re.Match[str], word: str) -> None:
        frame = self.stack[-1]
        if frame.bracket == "{" and not frame.key:
            dotted = self.last is not None and self.last.group() == "." and self.path
            self.path = [*self.path, word] if dotted else [word]
            if _is_key(self.text, token.end()):
                frame.given.append(".".join(self.path))
        elif self._opens_value(frame, token, word):
            frame.key = (word,)
            frame.given.append(word)
        elif not frame.bracket and not frame.key:
            self.words.append(word)

    def _opens_value(self, frame: Frame, token: re.Match[str], word: str) -> bool:
        """Whether what follows a name is given to it: a named argument, a clause."""
        if frame.bracket == "(":
            return _is_assigned(self.text, token.end())
        return not frame.bracket and word in CLAUSES

    def _mark(self, mark: str) -> None:
        frame = self.stack[-1]
        if mark in "([{":
            self._open(mark)
        elif mark in ")]}":
            if len(self.stack) > 1:
                self.stack.pop()
                self._after_close(mark)
        elif mark == ",":
            frame.index, frame.amount = frame.index + 1, False
            if frame.bracket == "{":
                self._next_entry()
            elif frame.bracket == "(":
                frame.key = ()
        elif mark == "=" and frame.bracket == "{" and not frame.key:
            frame.key = tuple(self.path)
        elif mark == "=" and not frame.bracket and not frame.key:
            frame.key = ("=",)
        elif mark == ":" and frame.bracket == "[":
            frame.amount = True

    def _open(self, mark: str) -> None:
        frame = self.stack[-1]
        if mark == "{" and not frame.bracket:
            self.braces = self.braces if self.braces is not None else self._last_end()
        head = tuple(self.path) if mark == "{" and frame.bracket == "{" else ()
        self.stack.append(Frame(mark, self._callee() if mark == "(" else head))
        self.path = []

    def _after_close(self, mark: str) -> None:
        if mark == "}" and self.stack[-1].bracket == "{":
            self._next_entry()

    def _next_entry(self) -> None:
        self.stack[-1].key, self.path = (), []

    def _callee(self) -> tuple[str, ...]:
        """The name right before a bracket; empty where it only groups."""
        last = self.last
        if last is None or last.lastgroup != "name" or last.group() in OPERATORS:
            return ()
        return (last.group(),)

    def _last_end(self) -> int:
        return self.last.end() if self.last else self.begin


def _closed(token: re.Match[str]) -> bool:
    text = token.group()
    if text.startswith('"""'):
        return len(text) >= 6 and text.endswith('"""')
    return len(text) >= 2 and text.endswith('"')


def _goes_on(text: str, at: int, end: int) -> bool:
    return re.compile(r"\s*(?:and|or)\b").match(text, at, end) is not None


def _is_assigned(text: str, at: int) -> bool:
    return re.compile(r"[ \t]*=(?!=)").match(text, at) is not None


def _is_key(text: str, at: int) -> bool:
    return re.compile(r"[ \t]*(?:=(?!=)|\{)").match(text, at) is not None
