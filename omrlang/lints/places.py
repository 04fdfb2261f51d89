"""Where a lint points to, and the questions that several lints ask of a recipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from omrlang.hir import Recipe, Stage
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source
from omrlang.source import Span
from omrlang.types import Between, Binary, Call, ExprNode, Index, ListOf, Unary


class Graph:
    """A recipe's stages, found by name."""

    def __init__(self, recipe: Recipe) -> None:
        self.stages = recipe.stages
        self.by_name = {stage.spec.name: stage for stage in recipe.stages}

    def ancestors(self, stage: Stage) -> Iterator[Stage]:
        """The stages that a stage's rows came through, nearest first."""
        todo = deque(row_parents(stage))
        seen: set[str] = set()
        while todo:
            name = todo.popleft()
            if name not in seen:
                seen.add(name)
                yield self.by_name[name]
                todo.extend(row_parents(self.by_name[name]))


def setting_span(stage: Stage, key: str) -> Span:
    """The value of a setting; the stage's name where it is a default."""
    provenance = stage.settings.get(key)
    return provenance.span if provenance and provenance.span else stage.span


def row_parents(stage: Stage) -> tuple[str, ...]:
    """The names of the stages whose rows go in."""
    match stage.spec:
        case Source():
            return ()
        case Mix(parts=parts):
            return tuple(part.rows for part in parts)
        case Eval(rows=rows):
            return rows
        case Sample(rows=name) | Filter(rows=name) | Sft(rows=name) | Rl(rows=name):
            return (name,)


def calls(tree: ExprNode) -> Iterator[Call]:
    """Every call in an expression."""
    match tree:
        case Call():
            yield tree
            parts: tuple[ExprNode, ...] = (*tree.args, *(node for _, node in tree.named))
        case ListOf(items=items):
            parts = items
        case Unary(x=x):
            parts = (x,)
        case Binary(left=left, right=right):
            parts = (left, right)
        case Between(x=x, lo=lo, hi=hi):
            parts = (x, lo, hi)
        case Index(x=x, at=at):
            parts = (x, at)
        case _:
            parts = ()
    for part in parts:
        yield from calls(part)
