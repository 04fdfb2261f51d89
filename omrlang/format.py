"""Text or syntax to formatted text. Keys are never reordered, comments stay where they stand, twice is once."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from omrlang import syntax as s
from omrlang.diagnostics import Reporter
from omrlang.parse import parse
from omrlang.source import SourceFile

WIDTH = 100
INDENT = 2
_BLANK_LINE = re.compile(r"\n[ \t\r\f]*\n")


def format_text(text: str) -> str:
    """The text formatted; unchanged where it does not parse.

    >>> format_text("mix  all_of from [ a:all,b : 20% ] { total=500 }")
    'mix all_of from [a: all, b: 20%] { total = 500 }\\n'
    """
    reporter = Reporter()
    file = parse(SourceFile(Path("-"), text), reporter)
    return text if reporter.has_errors else format_file(file)


def format_file(file: s.File) -> str:
    """A file that parsed, as text."""
    lines = _Printer(file).file_lines()
    return "\n".join(line.rstrip() for line in lines) + "\n" if lines else ""


# ---- one line ----------------------------------------------------------------------------------


def format_expression(expr: s.Expr) -> str:
    """An expression on one line, with its brackets as written."""
    match expr:
        case s.Number() | s.Text():
            return _literal(expr)
        case s.Constant():
            return "none" if expr.value is None else str(expr.value).lower()
        case s.Name():
            return expr.id
        case s.Attr():
            return f"{format_expression(expr.base)}.{expr.name.id}"
        case s.ListExpr():
            return f"[{', '.join(format_item(item) for item in expr.items)}]"
        case s.CallExpr():
            args = ", ".join(format_arg(arg) for arg in expr.args)
            return f"{_called(expr.fn)}({args})"
        case s.IndexExpr():
            return f"{format_expression(expr.base)}[{format_expression(expr.at)}]"
        case s.UnaryExpr():
            sign = "not " if expr.op == "not" else "-"
            return f"{sign}{format_expression(expr.x)}"
        case s.BinaryExpr():
            return f"{format_expression(expr.left)} {expr.op} {format_expression(expr.right)}"
        case s.RangeExpr():
            return " .. ".join(map(format_expression, s.parts_of(expr)))
        case s.Paren():
            return f"({format_expression(expr.inner)})"
        case _:
            assert_never(expr)


def _called(fn: s.Expr) -> str:
    """What stands before the bracket of a call; `4 of (…)` is written with a space."""
    return f"{format_expression(fn)} " if isinstance(fn, s.Number) else format_expression(fn)


def format_item(item: s.Item) -> str:
    value = format_expression(item.value)
    return value if item.amount is None else f"{value}: {format_expression(item.amount)}"


def format_arg(arg: s.Arg) -> str:
    value = format_expression(arg.value)
    return value if arg.name is None else f"{arg.name.id} = {value}"


def _literal(expr: s.Number | s.Text) -> str:
    """As written; a number's unit is set off by single spaces."""
    if isinstance(expr, s.Text):
        return expr.span.text
    head = expr.span.text.split("/")[0].split()[0]
    return f"{head}{' ' if expr.unit else ''}{expr.unit or ''}"


def _path(path: Sequence[s.Name]) -> str:
    return ".".join(name.id for name in path)


def _one_line_block(block: s.Block) -> str:
    if not block.entries:
        return "{}"
    entries = []
    for entry in block.entries:
        tail = f"= {format_expression(entry.value)}" if isinstance(entry, s.Setting) else ""
        entries.append(f"{_path(entry.path)} {tail or _one_line_block(_block(entry))}")
    return f"{{ {', '.join(entries)} }}"


def _block(entry: s.Setting | s.Group) -> s.Block:
    assert isinstance(entry, s.Group), "a setting has no block"
    return entry.block


# ---- many lines --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Printer:
    """Walks a file from top to bottom; ``done`` comments are printed already.

    A comment on the line where something ends goes to the end of its line, any other stands on a line of its own
    above what follows it.
    """

    file: s.File
    done: int = 0

    def file_lines(self) -> list[str]:
        lines: list[str] = []
        previous: int | None = None
        was_long = False
        for statement in self.file.statements:
            above, start = self.leading(statement.span.start, 0, previous)
            # Comments were taken off first, so that those inside the statement stay inside.
            own = self.statement(statement)
            is_long = len(own) > 1
            if previous is not None and (was_long or is_long) and not _starts_blank(above):
                above = ["", *above] if above else above
            if start is not None and (
                self.gap(start, statement.span.start) or (not above and (was_long or is_long))
            ):
                own = ["", *own]
            lines += above + own
            previous, was_long = statement.span.end, is_long
        below, _ = self.leading(len(self.file.source.text) + 1, 0, previous)
        return lines + below

    # -- comments and gaps

    def gap(self, a: int, b: int) -> bool:
        """Whether an empty line stands between two offsets."""
        return _BLANK_LINE.search(self.file.source.text, a, b) is not None

    def leading(
        self, before: int, indent: int, previous: int | None
    ) -> tuple[list[str], int | None]:
        """The comments before an offset as lines of their own, and where the last thing ended."""
        lines: list[str] = []
        while self.done < len(self.file.comments):
            comment = self.file.comments[self.done]
            if comment.span.start >= before:
                break
            if previous is not None and self.gap(previous, comment.span.start):
                lines.append("")
            lines.append(" " * indent + comment.text)
            # A comment from inside what stands above has nothing below it that could be a gap here.
            previous = max(previous or 0, comment.span.end)
            self.done += 1
        return lines, previous

    def trailing(self, end: int) -> str:
        """The comment at the end of the line on which something ends."""
        if self.done == len(self.file.comments):
            return ""
        comment = self.file.comments[self.done]
        between = self.file.source.text[end : comment.span.start]
        if (
            comment.span.start < end
            or "\n" in between
            or between.strip() not in ("", ",", "{", "[", "(")
        ):
            return ""
        self.done += 1
        return f"  {comment.text}"

    def holds_comment(self, node: s.Node) -> bool:
        """Whether a comment that is not printed yet stands inside."""
        comments = self.file.comments
        first = bisect_right(
            comments, node.span.start, self.done, key=lambda comment: comment.span.start
        )
        return first < len(comments) and comments[first].span.start < node.span.end

    # -- statements

    def statement(self, statement: s.Statement) -> list[str]:
        match statement:
            case s.Version():
                lines = [f"omr {_literal(statement.number)}"]
            case s.Use():
                alias = f" as {statement.alias.id}" if statement.alias else ""
                lines = [f"use {format_expression(statement.module)}{alias}"]
            case s.Let():
                lines = self.value(f"let {statement.name.id} = ", statement.value, 0)
            case s.Assign():
                lines = self.value(f"{statement.name.id} = ", statement.value, 0)
            case s.Declaration():
                head = f"{statement.kind.id} {statement.name.id}"
                base, end = statement.base, statement.span.end
                return self.header(head, base, statement.clauses, statement.block, end)
            case s.Reopen():
                head, end = _path(statement.path), statement.span.end
                return self.header(head, None, statement.clauses, statement.block, end)
            case s.Amend():
                lines = [f"amend {statement.file.span.text}"]
            case s.Because():
                lines = [f"because {statement.text.span.text}"]
            case s.Allow():
                lines = [f"allow {statement.code.id} because {statement.because.span.text}"]
            case _:
                assert_never(statement)
        return self.ended(lines, statement.span.end)

    def ended(self, lines: list[str], end: int) -> list[str]:
        """With the comment that stands at the end of the last line."""
        return [*lines[:-1], lines[-1] + self.trailing(end)]

    def header(
        self,
        head: str,
        base: s.Expr | None,
        clauses: Sequence[s.ClauseExpr],
        block: s.Block | None,
        end: int,
    ) -> list[str]:
        """``KIND NAME = base from … with … {`` and the block."""
        parts: list[tuple[str, s.Expr]] = [("=", base)] if base is not None else []
        parts += [(clause.word, clause.value) for clause in clauses]
        one = " ".join([head, *(f"{word} {format_expression(expr)}" for word, expr in parts)])
        opens = len(self.opening(block))
        wide = "\n" not in one and len(one) + opens > WIDTH
        exploded = self.exploded_part(parts, wide)
        lines = [head]
        for position, (word, expr) in enumerate(parts):
            goes_on = exploded == position
            more = self.explode(expr, 0) if goes_on else [format_expression(expr)]
            lines[-1] += f" {word} {more[0]}"
            lines += more[1:]
        return self.with_block(lines, block, 0, end)

    def opening(self, block: s.Block | None) -> str:
        if block is None:
            return ""
        return f" {_one_line_block(block)}" if self.is_short(block) else " {"

    def exploded_part(self, parts: list[tuple[str, s.Expr]], wide: bool) -> int | None:
        """Which expression of a header goes over several lines: one written so, else the longest of a wide line."""
        can = [i for i, (_, expr) in enumerate(parts) if isinstance(expr, s.ListExpr | s.CallExpr)]
        for i in can:
            if self.is_open(parts[i][1]):
                return i
        return max(can, key=lambda i: len(parts[i][1].span.text), default=None) if wide else None

    # -- blocks

    def is_short(self, block: s.Block) -> bool:
        """A block that is written on one line stays on one."""
        text = block.span.text
        return not self.holds_comment(block) and (not block.entries or "\n" not in text)

    def with_block(
        self, lines: list[str], block: s.Block | None, indent: int, end: int
    ) -> list[str]:
        """A header's or group's lines with its block behind them."""
        if block is None:
            return self.ended(lines, end)
        if self.is_short(block):
            one = f"{lines[-1]} {_one_line_block(block)}"
            if len(one) <= WIDTH or not block.entries:
                return self.ended([*lines[:-1], one], block.span.end)
        opened = f"{lines[-1]} {{{self.trailing(block.span.start + 1)}"
        inner = self.entries(block, indent + INDENT)
        closed = " " * indent + "}"
        return [*lines[:-1], opened, *inner, closed + self.trailing(block.span.end)]

    def entries(self, block: s.Block, indent: int) -> list[str]:
        """A block's settings, ``=`` aligned in runs without an empty line between."""
        lines: list[str] = []
        previous: int | None = None
        widths = self.key_widths(block)
        for entry, width in zip(block.entries, widths, strict=True):
            above, start = self.leading(entry.span.start, indent, previous)
            if start is not None and self.gap(start, entry.span.start):
                above.append("")
            lines += above
            key = _path(entry.path)
            if isinstance(entry, s.Setting):
                own = self.value(f"{' ' * indent}{key:<{width}} = ", entry.value, indent)
                lines += self.ended(own, entry.span.end)
            else:
                head = [f"{' ' * indent}{key}"]
                lines += self.with_block(head, entry.block, indent, entry.span.end)
            previous = entry.span.end
        below, _ = self.leading(block.span.end, indent, previous)
        return lines + below

    def key_widths(self, block: s.Block) -> list[int]:
        """For each entry the width of the longest key of its run; a group or an empty line ends a run."""
        runs: list[list[int]] = [[]]
        previous: s.Setting | s.Group | None = None
        for position, entry in enumerate(block.entries):
            apart = previous is not None and self.gap(previous.span.end, entry.span.start)
            if apart or isinstance(entry, s.Group) or isinstance(previous, s.Group):
                runs.append([])
            runs[-1].append(position)
            previous = entry
        widths = [0] * len(block.entries)
        for run in runs:
            for position in run:
                widths[position] = max(len(_path(block.entries[i].path)) for i in run)
        return widths

    # -- values

    def value(self, head: str, expr: s.Expr, indent: int) -> list[str]:
        """``key = value``, over several lines where it is written so or does not fit."""
        one = head + format_expression(expr)
        can = isinstance(expr, s.ListExpr | s.CallExpr)
        if can and (self.is_open(expr) or ("\n" not in one and len(one) > WIDTH and _parts(expr))):
            lines = self.explode(expr, indent)
            return [head + lines[0], *lines[1:]]
        if isinstance(expr, s.BinaryExpr) and expr.op in ("and", "or") and len(one) > WIDTH:
            return self.chain(head, expr, indent)
        return [one]

    def is_open(self, expr: s.Expr) -> bool:
        """Written with a line end after the bracket, or with a comment inside."""
        if not _parts(expr):
            return self.holds_comment(expr)
        start = expr.fn.span.end if isinstance(expr, s.CallExpr) else expr.span.start
        return "\n" in expr.span.file.text[
            start : _parts(expr)[0].span.start
        ] or self.holds_comment(expr)

    def explode(self, expr: s.Expr, indent: int) -> list[str]:
        """A list or call with one item a line and a comma after each."""
        is_call = isinstance(expr, s.CallExpr)
        opened = f"{_called(expr.fn)}(" if isinstance(expr, s.CallExpr) else "["
        start = expr.fn.span.end + 1 if isinstance(expr, s.CallExpr) else expr.span.start + 1
        lines = [opened + self.trailing(start)]
        previous: int | None = None
        for part in _parts(expr):
            above, at = self.leading(part.span.start, indent + INDENT, previous)
            if at is not None and self.gap(at, part.span.start):
                above.append("")
            own = self.part(part, indent + INDENT)
            lines += above + self.ended([*own[:-1], f"{own[-1]},"], part.span.end)
            previous = part.span.end
        below, _ = self.leading(expr.span.end, indent + INDENT, previous)
        return [*lines, *below, " " * indent + (")" if is_call else "]")]

    def part(self, part: s.Item | s.Arg, indent: int) -> list[str]:
        lead = " " * indent
        if isinstance(part, s.Arg) and part.name is not None:
            return self.value(f"{lead}{part.name.id} = ", part.value, indent)
        if isinstance(part, s.Item) and part.amount is not None:
            return [lead + format_item(part)]
        return self.value(lead, part.value, indent)

    def chain(self, head: str, expr: s.BinaryExpr, indent: int) -> list[str]:
        """``a`` / ``and b`` / ``and c``: a line that begins with ``and`` or ``or`` goes on."""
        operands: list[tuple[str, s.Expr]] = []
        rest: s.Expr = expr
        while isinstance(rest, s.BinaryExpr) and rest.op == expr.op:
            operands.append((rest.op, rest.right))
            rest = rest.left
        lead = " " * (indent + INDENT)
        more = [f"{lead}{op} {format_expression(operand)}" for op, operand in reversed(operands)]
        return [head + format_expression(rest), *more]


def _parts(expr: s.Expr) -> Sequence[s.Item | s.Arg]:
    match expr:
        case s.ListExpr():
            return expr.items
        case s.CallExpr():
            return expr.args
        case _:
            return ()


def _starts_blank(lines: list[str]) -> bool:
    return bool(lines) and lines[0] == ""
