"""The names of a recipe and the drafts that they stand for: declarations whose values are still expressions.

A draft is put together from layers: a stage that derives from another, a file that amends another, ``--set``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from omrlang import syntax as s
from omrlang.diagnostics import Reporter, did_you_mean
from omrlang.files import library_modules
from omrlang.hir import Layer
from omrlang.imports import use_of
from omrlang.schema import KINDS
from omrlang.source import SourceFile, Span

THINGS = ("model", "gpu", "hardware", "prompt", "verifier")
STAGES = (*KINDS, "benchmark")
MAKES_ROWS = ("source", "benchmark", "mix", "sample", "filter")
MAKES_MODEL = ("sft", "rl")


@dataclass(frozen=True, slots=True)
class Bound:
    """An expression, where its names are looked up, and who wrote it."""

    expr: s.Expr
    scope: Scope = field(repr=False, compare=False)
    layer: Layer

    def of(self, expr: s.Expr) -> Bound:
        """A part of this expression, or one beside it."""
        return Bound(expr, self.scope, self.layer)


@dataclass(slots=True)
class Slot:
    """One setting while drafts are put together: its value, what stands in its braces, or both.

    ``height`` grows with each draft or file laid on top: of a pair that excludes each other the higher one stays.
    ``is_unset`` is a slot whose key was written with `default`: what a lower layer had set counts no more.
    """

    key: s.Name
    value: Bound | None = None
    group: dict[str, Slot] = field(default_factory=dict)
    height: int = 0

    @property
    def is_unset(self) -> bool:
        expr = self.value.expr if self.value is not None else None
        return isinstance(expr, s.Name) and expr.id == "default"

    @property
    def given(self) -> Bound | None:
        """The value, if one is set."""
        return None if self.is_unset else self.value

    def copy(self, lift: int = 0) -> Slot:
        group = {key: slot.copy(lift) for key, slot in self.group.items()}
        return Slot(self.key, self.value, group, self.height + lift)


@dataclass(slots=True, eq=False)
class Draft:
    """A declaration before its values are known. ``name`` is qualified with its module's name."""

    kind: str
    name: str
    span: Span
    scope: Scope = field(repr=False)
    base: Bound | None = None
    clauses: dict[str, Bound] = field(default_factory=dict)
    clause_spans: dict[str, Span] = field(default_factory=dict)
    settings: dict[str, Slot] = field(default_factory=dict)

    def sets(self, key: str) -> bool:
        """Whether a setting is given."""
        slot = self.settings.get(key)
        return slot is not None and (bool(slot.group) or not slot.is_unset)


class Drafts(MutableMapping[str, Draft]):
    """Drafts by name. One of the standard library is read when it is asked for: a recipe uses few of them."""

    def __init__(self) -> None:
        self._found: dict[str, Draft | Callable[[], None]] = {}

    def later(self, name: str, read: Callable[[], None]) -> None:
        """``read`` will put the draft in."""
        self._found[name] = read

    def known(self) -> list[Draft]:
        """Those that were read so far."""
        return [found for found in self._found.values() if isinstance(found, Draft)]

    def __getitem__(self, name: str) -> Draft:
        found = self._found[name]
        if isinstance(found, Draft):
            return found
        found()
        return self[name]

    def __setitem__(self, name: str, draft: Draft) -> None:
        self._found[name] = draft

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(slots=True, eq=False)
class Scope:
    """The names of one file. ``prefix`` is empty in the recipe itself, else the module's name and a dot.

    ``folder`` is what the file's own relative paths start from, ``home`` what those of the whole recipe do.
    An amending file has a scope of its own that shares the names of its base; ``height`` counts the files below it.
    ``broken`` are names whose definition was refused: that they are unknown is not said again. ``is_broken`` is a
    module, or what a recipe amends, that could not be read at all.
    """

    file: SourceFile = field(repr=False)
    folder: Path
    prefix: str
    layer: Layer
    home: Path = field(default_factory=Path)
    height: int = 0
    because: str | None = None
    chosen: Mapping[Span, s.Expr] = field(default_factory=dict, repr=False)
    lets: dict[str, Bound] = field(default_factory=dict)
    drafts: Drafts = field(default_factory=Drafts)
    modules: dict[str, Scope] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    seed: Bound | None = None
    budget: dict[str, Slot] = field(default_factory=dict)
    allowed: dict[str, Span] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    is_broken: bool = False

    def has_lost(self, name: str) -> bool:
        """Whether a name that is not there may be one whose definition could not be read."""
        return self.is_broken or name in self.broken

    def names(self) -> list[str]:
        return [*self.drafts, *self.lets, *self.modules]

    def bind(self, expr: s.Expr) -> Bound:
        """An expression as this file wrote it; of each sweep in it the chosen value."""
        if expr.span in self.chosen:
            return Bound(self.chosen[expr.span], self, "sweep")
        return Bound(_with_chosen(expr, self.chosen) if self.chosen else expr, self, self.layer)


Found: TypeAlias = Bound | Draft | Scope


Tree = TypeVar("Tree", bound=s.Node)


def look_up(scope: Scope, expr: s.Expr) -> Found | None:
    """What a name or dotted name stands for; None if it is neither or stands for nothing.

    The dotted part ends at a declaration: ``formats.think_answer.system`` is looked up up to ``think_answer``.
    """
    match expr:
        case s.Name():
            for names in (scope.drafts, scope.lets, scope.modules):
                if expr.id in names:
                    return names[expr.id]
            return None
        case s.Attr():
            base = look_up(scope, expr.base)
            return look_up(base, expr.name) if isinstance(base, Scope) else None
        case s.Paren():
            return look_up(scope, expr.inner)
        case _:
            return None


def report_unknown(scope: Scope, expr: s.Name | s.Attr, reporter: Reporter) -> None:
    """Say which part of a dotted name is not there, and what is near it."""
    if isinstance(expr, s.Attr):
        base = look_up(scope, expr.base)
        if base is None and isinstance(expr.base, s.Name | s.Attr):
            report_unknown(scope, expr.base, reporter)
        elif not isinstance(base, Scope):
            message = f"`{expr.base.span.text}` has no part `{expr.name.id}`"
            hint = None if isinstance(base, Draft) else "modules and declared things have parts"
            reporter.error("E201", message, expr.name.span, hint)
        elif not base.has_lost(expr.name.id):
            hint = did_you_mean(expr.name.id, base.names(), "it has")
            module = base.prefix.rstrip(".")
            reporter.error("E201", f"`{module}` has no `{expr.name.id}`", expr.name.span, hint)
        return
    if scope.has_lost(expr.id):
        return
    hint, fix = did_you_mean(expr.id, [*scope.names(), "true", "false", "none"]), None
    if expr.id in library_modules():
        hint = f"`use std.{expr.id}` at the top of the file brings it in"
        fix = use_of(expr.id, expr.span.file)
    reporter.error("E201", f"unknown name `{expr.id}`", expr.span, hint, fix=fix)


def _with_chosen(node: Tree, chosen: Mapping[Span, s.Expr]) -> Tree:
    """The same tree with the chosen values in the places of sweeps. What holds nothing but a sweep has its span too."""
    if isinstance(node, s.CallExpr) and node.span in chosen:
        return cast(Tree, chosen[node.span])
    changed: dict[str, Any] = {}
    for item in fields(node):
        value = getattr(node, item.name)
        if isinstance(value, s.Node):
            changed[item.name] = _with_chosen(value, chosen)
        elif isinstance(value, tuple):
            changed[item.name] = tuple(_with_chosen(part, chosen) for part in value)
    return replace(node, **changed)


def slot_at(slots: dict[str, Slot], path: Sequence[s.Name]) -> Slot:
    for name in path[:-1]:
        slots = slots.setdefault(name.id, Slot(name)).group
    return slots.setdefault(path[-1].id, Slot(path[-1]))


def put(slots: dict[str, Slot], path: Sequence[s.Name], value: Bound) -> None:
    """Set a value, dropping what a lower layer had put in its braces."""
    slot = slot_at(slots, path)
    slot.key, slot.value, slot.group, slot.height = path[-1], value, {}, value.scope.height


def layered(base: Draft, over: Draft) -> Draft:
    """``over`` on top of ``base``: a given clause or value replaces, groups merge."""
    merged = Draft(over.kind, over.name, over.span, over.scope, base.base)
    merged.clauses = {**base.clauses, **over.clauses}
    merged.clause_spans = {**base.clause_spans, **over.clause_spans}
    merged.settings = {key: slot.copy() for key, slot in base.settings.items()}
    _lay(merged.settings, over.settings, 1 + max(map(_top, base.settings.values()), default=0))
    return merged


def _top(slot: Slot) -> int:
    return max((slot.height, *map(_top, slot.group.values())))


def _lay(slots: dict[str, Slot], over: dict[str, Slot], lift: int) -> None:
    for key, slot in over.items():
        if key not in slots or slot.value is not None:
            slots[key] = slot.copy(lift)
        else:
            _lay(slots[key].group, slot.group, lift)
