"""What the checker carries along while it turns drafts into values: reports, finished things, the row at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from omrlang import syntax as s
from omrlang.diagnostics import Fix, Reporter
from omrlang.hir import Provenance
from omrlang.parse import MAX_DEPTH
from omrlang.scope import Bound, Draft, Scope, look_up
from omrlang.source import Span
from omrlang.types import Aggregate, ExprType, Setting


class Failed(Enum):
    """What a step gives that has reported an error: nothing further is said about it."""

    FAILED = "failed"


FAILED: Final = Failed.FAILED


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a row at one stage; ``names`` None is a row whose columns are not known. ``own`` are those that
    the stage itself writes: rows that only go in do not have them yet."""

    names: dict[str, ExprType] | None
    what: str = "the row"
    raw: bool = False
    own: frozenset[str] = frozenset()

    @property
    def given(self) -> Columns:
        """The columns of the rows that go in."""
        if self.names is None:
            return self
        return replace(self, names={k: v for k, v in self.names.items() if k not in self.own})


@dataclass(frozen=True, slots=True)
class Traits:
    """What is certain of a stage: a benchmark that its rows come from, sources that gave them images, and videos or audio, the model
    of text alone that it has or makes, and the one that brings images to a size of its own; each by name. ``aggregate`` is how
    a source says that its rows are counted, ``most`` the most rows that a stage can give."""

    benchmark: str | None = None
    pictured: str | None = None
    filmed: str | None = None
    text_only: str | None = None
    own_size: str | None = None
    aggregate: Aggregate | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value goes: how it is called in messages, and how it is declared."""

    label: str
    setting: Setting | None = None


@dataclass(slots=True)
class Context:
    """``things`` are finished declarations by draft, ``lets`` values by their expression, ``rows`` the columns of
    stages, ``traits`` what else is certain of them by name. ``refused`` are stages whose base or place in the graph
    was refused: of those nothing is missing; ``refused_keys`` keys (by identity) that blocks which derive from each
    other share. ``open`` are things being made, outermost first.

    ``build`` makes a declared thing; it is handed in because values and things are made of each other.
    ``columns`` are those of the stage at hand. ``provenance`` gathers who set what on it (``origins`` what was
    gathered on each thing), ``unpublished`` the settings that nobody published; ``path`` is the setting that is being read."""

    reporter: Reporter
    root: Scope
    build: Callable[[Context, Draft], Any]
    seed: int = 0
    things: dict[Draft, Any] = field(default_factory=dict)
    lets: dict[int, Any] = field(default_factory=dict)
    rows: dict[Draft, Columns] = field(default_factory=dict)
    traits: dict[str, Traits] = field(default_factory=dict)
    refused: set[Draft] = field(default_factory=set)
    refused_keys: set[int] = field(default_factory=set)
    open: list[object] = field(default_factory=list)
    columns: Columns = field(default_factory=lambda: Columns(None))
    provenance: dict[str, Provenance] = field(default_factory=dict)
    origins: dict[Draft, dict[str, Provenance]] = field(default_factory=dict)
    unpublished: list[str] = field(default_factory=list)
    path: str = ""

    def error(
        self,
        code: str,
        message: str,
        span: Span,
        hint: str | None = None,
        related: tuple[tuple[Span, str], ...] = (),
        fix: Fix | None = None,
    ) -> Failed:
        self.reporter.error(code, message, span, hint, related, fix)
        return FAILED

    def thing(self, draft: Draft) -> Any:
        """The value of a declared model, machine or prompt; made once."""
        if draft not in self.things:
            made = self.guarded(draft, draft.name, draft.span, lambda: self.build(self, draft))
            self.things[draft] = made
        return self.things[draft]

    def guarded(self, key: object, name: str, span: Span, make: Callable[[], Any]) -> Any:
        """``make()``, unless ``key`` is being made already or names lead too deep."""
        if any(item is key for item in self.open):
            return self.error("E212", f"`{name}` depends on itself", span)
        if len(self.open) >= MAX_DEPTH:
            return self.error("E105", f"names lead to names over {MAX_DEPTH} deep", span)
        self.open.append(key)
        try:
            return make()
        finally:
            self.open.pop()

    @contextmanager
    def within(self, name: str, bound: Bound) -> Iterator[None]:
        """An argument of the call that the setting at hand has, kept with who gave it."""
        path, self.path = self.path, f"{self.path}.{name}"
        self.provenance[self.path] = Provenance(bound.layer, bound.expr.span)
        try:
            yield
        finally:
            self.path = path

    def follow(self, bound: Bound) -> Bound:
        """Through brackets and ``let`` names to the expression that is meant; a cycle ends where it is."""
        for _ in range(MAX_DEPTH):
            if isinstance(bound.expr, s.Paren):
                bound = bound.of(bound.expr.inner)
                continue
            found = look_up(bound.scope, bound.expr)
            if not isinstance(found, Bound):
                return bound
            bound = found
        return bound
