"""Parts of a statement to syntax nodes, as Lark reduces them; which newlines count; what nests too deep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar, cast

from lark import Token

from omrlang import syntax as s
from omrlang.diagnostics import Reporter, did_you_mean
from omrlang.parse.literals import number, unescape
from omrlang.source import SourceFile, Span

MAX_DEPTH = 64
CONTINUES = {"FROM", "WITH", "ON", "AND", "OR"}

_N = TypeVar("_N", bound=s.Node)


class TooDeep(Exception):
    def __init__(self, span: Span) -> None:
        self.span = span


class BracketTooDeep(Exception):
    def __init__(self, token: Token) -> None:
        self.token = token


class Newlines:
    """Lets through only the newlines that count: not inside ``( )`` and ``[ ]``, beside a brace or comma, doubled,
    or before a line that begins with ``from``, ``with``, ``on``, ``and`` or ``or``."""

    always_accept = ("NEWLINE",)

    def __init__(self) -> None:
        self.stack: list[Token] = []
        self.last: Token | None = None

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        self.stack, self.last = [], None
        newline: Token | None = None
        for token in stream:
            if token.type == "NEWLINE":
                newline = newline or token
                continue
            if newline is not None and self._counts(token):
                yield newline
            newline = None
            self._track(token)
            self.last = token
            yield token

    def _counts(self, following: Token) -> bool:
        inside = bool(self.stack) and self.stack[-1] in ("(", "[")
        after = self.last is None or self.last in ("{", ",")
        return not (inside or after or following.type in CONTINUES or following in ("}", ","))

    def _track(self, token: Token) -> None:
        if token in ("(", "[", "{"):
            self.stack.append(token)
            if len(self.stack) > MAX_DEPTH:
                raise BracketTooDeep(token)
        elif token in (")", "]", "}") and self.stack:
            self.stack.pop()


class Builder:
    """One method for each rule of the grammar, in its order: the rule's parts to a syntax node.

    Lark calls these as it reduces, so no tree of its own is ever made and nothing here recurses.
    """

    def begin(self, file: SourceFile, offset: int, reporter: Reporter) -> None:
        self.file, self.offset, self.reporter = file, offset, reporter
        self.depths: dict[int, int] = {}

    def end(self) -> None:
        self.depths = {}

    # -- places

    def span(self, kids: list[Any]) -> Span:
        start, end = self._ends(kids[0])[0], self._ends(kids[-1])[1]
        return Span(self.file, start, end)

    def _ends(self, kid: Any) -> tuple[int, int]:
        if isinstance(kid, Token):
            start, end = cast(int, kid.start_pos), cast(int, kid.end_pos)
            return start + self.offset, end + self.offset
        if isinstance(kid, list):
            return self._ends(kid[0])[0], self._ends(kid[-1])[1]
        return kid.span.start, kid.span.end

    def after_last(self, last: Token | None) -> Span:
        end = self.offset if last is None else self._ends(last)[1]
        return Span(self.file, max(0, end - 1), end) if end else Span(self.file, 0, 0)

    def after_newline(self, token: Token) -> Span:
        found = re.compile(r"\s*(\S[^\n]*)").match(self.file.text, self._ends(token)[0])
        return self.span([token]) if found is None else Span(self.file, *found.span(1))

    def _expr(self, make: Callable[..., _N], kids: list[Any], *parts: Any) -> _N:
        """An expression node, refused where it is nested too deep."""
        depth = 1 + max((self.depths.get(id(kid), 0) for kid in _flat(kids)), default=0)
        span = self.span(kids)
        if depth > MAX_DEPTH:
            raise TooDeep(span)
        node = make(span, *parts)
        self.depths[id(node)] = depth
        return node

    def _carry(self, node: _N, kids: list[Any]) -> _N:
        self.depths[id(node)] = max((self.depths.get(id(kid), 0) for kid in kids), default=0)
        return node

    # -- statements

    def version(self, kids: list[Any]) -> s.Version:
        return s.Version(self.span(kids), self.number(kids[1:]))

    def use(self, kids: list[Any]) -> s.Use:
        return s.Use(self.span(kids), kids[1], kids[3] if len(kids) > 2 else None)

    def let(self, kids: list[Any]) -> s.Let:
        return s.Let(self.span(kids), kids[1], kids[3])

    def assign(self, kids: list[Any]) -> s.Assign:
        return s.Assign(self.span(kids), kids[0], kids[2])

    def declaration(self, kids: list[Any]) -> s.Declaration:
        base = kids[3] if len(kids) > 2 and isinstance(kids[2], Token) else None
        clauses = tuple(kid for kid in kids if isinstance(kid, s.ClauseExpr))
        return s.Declaration(self.span(kids), kids[0], kids[1], base, clauses, _block_of(kids))

    def reopen(self, kids: list[Any]) -> s.Reopen:
        clauses = tuple(kid for kid in kids if isinstance(kid, s.ClauseExpr))
        return s.Reopen(self.span(kids), tuple(kids[0]), clauses, _block_of(kids))

    def amend(self, kids: list[Any]) -> s.Amend:
        return s.Amend(self.span(kids), kids[1])

    def because(self, kids: list[Any]) -> s.Because:
        return s.Because(self.span(kids), kids[1])

    def allow(self, kids: list[Any]) -> s.Allow:
        if kids[0].id != "allow":
            hint = did_you_mean(kids[0].id, ["allow"])
            self.reporter.error("E101", f"unexpected `{kids[0].id}`", kids[0].span, hint)
        return s.Allow(self.span(kids), kids[0], kids[1], kids[3])

    def clause(self, kids: list[Any]) -> s.ClauseExpr:
        return s.ClauseExpr(self.span(kids), cast(Any, str(kids[0])), kids[1])

    # -- blocks

    def block(self, kids: list[Any]) -> s.Block:
        entries = kids[1] if isinstance(kids[1], list) else []
        return s.Block(self.span(kids), tuple(e for e in entries if not isinstance(e, Token)))

    def entries(self, kids: list[Any]) -> list[Any]:
        return kids

    def setting(self, kids: list[Any]) -> s.Setting:
        return s.Setting(self.span(kids), tuple(kids[0]), kids[2])

    def group(self, kids: list[Any]) -> s.Group:
        return s.Group(self.span(kids), tuple(kids[0]), kids[1])

    def path(self, kids: list[Any]) -> list[s.Name]:
        return [kid for kid in kids if isinstance(kid, s.Name)]

    def from_key(self, kids: list[Any]) -> list[s.Name]:
        return [s.Name(self.span(kids), str(kids[0]))]

    # -- expressions

    def binary(self, kids: list[Any]) -> s.BinaryExpr:
        words = kids[1:-1]
        op = " ".join(str(word) for word in words)
        return self._expr(s.BinaryExpr, kids, kids[0], op, self.span(words), kids[-1])

    def unary(self, kids: list[Any]) -> s.UnaryExpr:
        op: Literal["not", "-"] = "not" if kids[0] == "not" else "-"
        return self._expr(s.UnaryExpr, kids, op, kids[1])

    def range_(self, kids: list[Any]) -> s.RangeExpr:
        ends = [kid for kid in kids[::2] if kid is not None]
        return self._expr(s.RangeExpr, kids, ends[0], ends[-1], ends[1] if len(ends) > 2 else None)

    def attr(self, kids: list[Any]) -> s.Attr:
        return self._expr(s.Attr, kids, kids[0], kids[2])

    def call(self, kids: list[Any]) -> s.CallExpr:
        args = kids[2] if isinstance(kids[2], list) else []
        return self._expr(s.CallExpr, kids, kids[0], tuple(a for a in args if isinstance(a, s.Arg)))

    def index(self, kids: list[Any]) -> s.IndexExpr:
        return self._expr(s.IndexExpr, kids, kids[0], kids[2])

    def paren(self, kids: list[Any]) -> s.Paren:
        return self._expr(s.Paren, kids, kids[1])

    def arguments(self, kids: list[Any]) -> list[Any]:
        return kids

    def argument(self, kids: list[Any]) -> s.Arg:
        name = kids[0] if len(kids) == 3 else None
        return self._carry(s.Arg(self.span(kids), name, kids[-1]), kids)

    def list_(self, kids: list[Any]) -> s.ListExpr:
        items = kids[1] if isinstance(kids[1], list) else []
        found = tuple(item for item in items if isinstance(item, s.Item))
        return self._expr(s.ListExpr, kids, found)

    def items(self, kids: list[Any]) -> list[Any]:
        return kids

    def item(self, kids: list[Any]) -> s.Item:
        amount = kids[2] if len(kids) == 3 else None
        return self._carry(s.Item(self.span(kids), kids[0], amount), kids)

    def dotted(self, kids: list[Any]) -> s.Expr:
        result: s.Expr = kids[0]
        for kid in kids[1:]:
            if isinstance(kid, s.Name):
                result = s.Attr(result.span.to(kid.span), result, kid)
        return result

    def name(self, kids: list[Any]) -> s.Name:
        return s.Name(self.span(kids), str(kids[0]))

    def number(self, kids: list[Any]) -> s.Number:
        span = self.span(kids)
        return number(str(kids[0]), span, self.reporter)

    def text(self, kids: list[Any]) -> s.Text:
        token: Token = kids[0]
        if token.type == "LONG_STRING":
            return s.Text(self.span(kids), token[3:-3])
        return s.Text(self.span(kids), unescape(token[1:-1], self.span(kids), self.reporter))

    def constant(self, kids: list[Any]) -> s.Constant:
        value = {"true": True, "false": False, "none": None}[str(kids[0])]
        return s.Constant(self.span(kids), value)


def _block_of(kids: list[Any]) -> s.Block | None:
    return kids[-1] if isinstance(kids[-1], s.Block) else None


def _flat(kids: list[Any]) -> Iterator[Any]:
    for kid in kids:
        yield from kid if isinstance(kid, list) else (kid,)
