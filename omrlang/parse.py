"""Text to syntax tree. Lark types stop at this module's edge.

A line with a letter in column 0 starts a statement; each statement is parsed alone, so one bad block hides no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import lark
from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from omrlang import syntax as s
from omrlang.diagnostics import Reporter, did_you_mean, listed, nearest
from omrlang.source import SourceFile, Span

MAX_DEPTH = 64
MAX_CHARACTERS = 4_000_000
MAX_NUMBER = Decimal("1e30")
RESERVED = frozenset(
    ["from", "on", "with", "and", "or", "not", "in", "is", "as", "use", "let", "amend", "because", "omr", "true", "false", "none", "matches"]
)
CONTINUES = {"FROM", "WITH", "ON", "AND", "OR"}
SUFFIXES: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "B": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "%": Decimal("0.01"),
}
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
# A long text, a text, a comment, or the start of a line with a letter in column 0.
_PIECES = re.compile(
    r'(?P<text>"""[\s\S]*?"""|"(?:\\[^\n]|[^"\\\n])*")|(?P<comment>\#[^\n]*)|(?P<start>^[A-Za-z_]\w*)',
    re.MULTILINE,
)
# The name that a statement seems to define: `let x`, `KIND x`.
_DEFINES = re.compile(r"[A-Za-z_]\w*[ \t]+([A-Za-z_]\w*)")
_NUMBER = re.compile(
    r"(?P<dollar>\$?)(?P<digits>[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?)"
    r"(?P<suffix>[A-Za-z_]*%?)(?P<unit>[\s\S]*)"
)

_N = TypeVar("_N", bound=s.Node)


def parse(file: SourceFile, reporter: Reporter) -> s.File:
    """The statements of a file; what cannot be read is reported and left out.

    >>> reporter = Reporter()
    >>> parse(SourceFile(Path("x.omr"), "let n = 1 +\\nseed = 7"), reporter).statements[0].name.id
    'seed'
    >>> [item.code for item in reporter.items]
    ['E101']
    """
    if len(file.text) > MAX_CHARACTERS:
        message = f"the file has {len(file.text):,} characters; the most is {MAX_CHARACTERS:,}"
        reporter.error("E106", message, Span(file, 0, 0))
        return s.File(file, (), ())
    comments, starts = _scan(file)
    _check_head(file, comments, starts, reporter)
    statements: list[s.Statement] = []
    broken: list[str] = []
    for start, end in pairwise([*starts, len(file.text)]):
        statement = _statement(file, start, end, reporter)
        if statement is not None:
            statements.append(statement)
        elif found := _DEFINES.match(file.text, start):
            broken.append(found[1])
    return s.File(file, tuple(statements), tuple(comments), frozenset(broken))


def parse_expression(file: SourceFile, start: int) -> s.Expr | None:
    """What stands in a text from ``start`` on, as one expression, as in ``--set path=value``; None if it is none."""
    reporter = Reporter()
    head = "let x = "
    statement = _parse_one(file, head + file.text[start:], start - len(head), reporter)
    return statement.value if isinstance(statement, s.Let) and not reporter.items else None


def _scan(file: SourceFile) -> tuple[list[s.Comment], list[int]]:
    """The comments, and the offsets at which statements start."""
    comments: list[s.Comment] = []
    starts: list[int] = []
    for match in _PIECES.finditer(file.text):
        if match.lastgroup == "comment":
            span = Span(file, match.start(), match.end())
            comments.append(s.Comment(span, match.group().rstrip()))
        elif match.lastgroup == "start" and match.group() not in CONTINUATION_WORDS:
            starts.append(match.start())
    return comments, starts


CONTINUATION_WORDS = {word.lower() for word in CONTINUES}


def _check_head(
    file: SourceFile, comments: list[s.Comment], starts: list[int], reporter: Reporter
) -> None:
    """Nothing but comments may stand before the first statement."""
    head = file.text[: starts[0] if starts else len(file.text)]
    for comment in comments:
        if comment.span.end <= len(head):
            a, b = comment.span.start, comment.span.end
            head = head[:a] + " " * (b - a) + head[b:]
    stray = re.search(r"\S[^\n]*", head)
    if stray is not None:
        message = "a statement starts with a letter at the beginning of a line"
        reporter.error("E108", message, Span(file, stray.start(), stray.end()))


def _statement(
    file: SourceFile, start: int, end: int, reporter: Reporter
) -> s.Statement | None:
    """The statement between two offsets, or None after a report."""
    return _parse_one(file, file.text[start:end], start, reporter)


def _parse_one(
    file: SourceFile, text: str, start: int, reporter: Reporter
) -> s.Statement | None:
    """A statement; ``start`` is where its text begins in the file."""
    parser, builder, newlines = _parser()
    builder.begin(file, start, reporter)
    try:
        return cast(s.Statement, parser.parse(text))
    except UnexpectedCharacters as error:
        _report_characters(file, start + _offset(error), reporter)
    except UnexpectedToken as error:
        _report_token(builder, error, newlines, reporter)
    except _TooDeep as error:
        reporter.error("E105", f"brackets or operators are nested over {MAX_DEPTH} deep", error.span)
    except _BracketTooDeep as error:
        message = f"brackets or operators are nested over {MAX_DEPTH} deep"
        reporter.error("E105", message, builder.span([error.token]))
    finally:
        builder.end()
    return None


def _offset(error: UnexpectedCharacters) -> int:
    return cast(int, error.pos_in_stream)


# ---- errors ------------------------------------------------------------------------------------

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
}
_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH", "COMPARE", "AND", "OR", "NOT", "IN", "IS", "MATCHES"}
_OPERATORS |= {"DOT", "LPAR", "LSQB", "__ANON_0", "NAME"}
_VALUE_STARTS = {"NAME", "NUMBER", "STRING", "LSQB", "LPAR"}


def _report_characters(file: SourceFile, at: int, reporter: Reporter) -> None:
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
    reporter.error("E101", f"unexpected character `{shown}`", Span(file, at, at + 1))


def _report_token(
    builder: _Builder, error: UnexpectedToken, newlines: _Newlines, reporter: Reporter
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
    near = nearest(str(token), words) if token.type == "NAME" else None
    hint = f"`{near}` stands here; it might be meant" if near else _hint(expected)
    reporter.error("E101", f"unexpected `{_short(token)}`", span, hint)


def _hint(expected: set[str]) -> str | None:
    names = set(expected)
    words = []
    if names >= _VALUE_STARTS:
        words.append("a value")
        names -= _VALUE_STARTS | {"LONG_STRING", "TRUE", "FALSE", "NONE", "MINUS", "NOT", "FROM_KEY"}
    if len(names) > 6 and {"PLUS", "MINUS"} & names:
        names -= _OPERATORS
    words += sorted({_TERMINALS.get(name, f"`{name.lower()}`") for name in names})
    return f"expected {listed(words, 'or')}" if 0 < len(words) <= 6 else None


def _short(token: str) -> str:
    first = token.split("\n")[0]
    return first if len(first) <= 40 else f"{first[:37]}…"


# ---- Lark's side -------------------------------------------------------------------------------


class _TooDeep(Exception):
    def __init__(self, span: Span) -> None:
        self.span = span


class _BracketTooDeep(Exception):
    def __init__(self, token: Token) -> None:
        self.token = token


class _Newlines:
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
                raise _BracketTooDeep(token)
        elif token in (")", "]", "}") and self.stack:
            self.stack.pop()


class _Builder:
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
            raise _TooDeep(span)
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
        return self._expr(s.RangeExpr, kids, kids[0], kids[2])

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
        return _number(str(kids[0]), span, self.reporter)

    def text(self, kids: list[Any]) -> s.Text:
        token: Token = kids[0]
        if token.type == "LONG_STRING":
            return s.Text(self.span(kids), token[3:-3])
        return s.Text(self.span(kids), _unescape(token[1:-1], self.span(kids), self.reporter))

    def constant(self, kids: list[Any]) -> s.Constant:
        value = {"true": True, "false": False, "none": None}[str(kids[0])]
        return s.Constant(self.span(kids), value)


def _block_of(kids: list[Any]) -> s.Block | None:
    return kids[-1] if isinstance(kids[-1], s.Block) else None


def _flat(kids: list[Any]) -> Iterator[Any]:
    for kid in kids:
        yield from kid if isinstance(kid, list) else (kid,)


def _number(text: str, span: Span, reporter: Reporter) -> s.Number:
    """``$1.60 / gpu_hour``, ``61_440``, ``10%``, ``16Ki tokens``; 0 after a report."""
    match = _NUMBER.fullmatch(text)
    assert match is not None, "the grammar's NUMBER and parse.py's disagree"
    suffix = match["suffix"]
    if suffix not in SUFFIXES:
        known = ", ".join(word for word in SUFFIXES if word)
        hint = f"suffixes are {known}; a unit stands after a space"
        reporter.error("E104", f"unknown suffix `{suffix}` on a number", span, hint)
        return s.Number(span, Decimal(0))
    digits = match["digits"].replace("_", "")
    # float first: it says at once that 1e999999999 is too big, where Decimal would try to hold it.
    if float(digits) * float(SUFFIXES[suffix]) > float(MAX_NUMBER):
        reporter.error("E107", "the number is over 1e30", span)
        return s.Number(span, Decimal(0))
    value = Decimal(digits) * SUFFIXES[suffix] if float(digits) else Decimal(0)
    unit = re.sub(r"\s*/\s*", " / ", " ".join(match["unit"].split())).strip() or None
    return s.Number(span, value, unit, suffix == "%", bool(match["dollar"]))


def _unescape(text: str, span: Span, reporter: Reporter) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            at = span.start + 1 + match.start()
            hint = r"`\\` is a backslash; in \"\"\" texts a backslash stands for itself"
            place = Span(span.file, at, at + 2)
            reporter.error("E110", f"`{match[0]}` is no escape", place, hint.replace('\\"', '"'))
        return _ESCAPES.get(match[1], match[0])

    return re.sub(r"\\([\s\S])", replace, text) if "\\" in text else text


@lru_cache(maxsize=1)
def _parser() -> tuple[Lark, _Builder, _Newlines]:
    """The parser, from the cached table where there is one."""
    grammar = Path(__file__).with_name("grammar.lark").read_text()
    builder, newlines = _Builder(), _Newlines()
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
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omrlang"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    key = sha256(f"{lark.__version__}\n{grammar}".encode()).hexdigest()[:16]
    return str(base / f"grammar-{key}.bin") if os.access(base, os.W_OK) else ""
