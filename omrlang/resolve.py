"""Syntax to a program of drafts: which name stands for what, in which file, and which layer set each value.

Nothing is evaluated here. A draft is a declaration whose values are still expressions, each bound to the scope in
which its names mean something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, assert_never

from omrlang import syntax as s
from omrlang.diagnostics import Reporter, did_you_mean, nearest
from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.hir import Layer
from omrlang.parse import MAX_CHARACTERS, RESERVED, parse, parse_expression
from omrlang.schema import KINDS
from omrlang.source import SourceFile, Span

THINGS = ("model", "gpu", "hardware", "prompt")
STAGES = (*KINDS, "benchmark")
MAKES_ROWS = ("source", "benchmark", "mix", "sample", "filter")
MAKES_MODEL = ("sft", "rl")
BARE_VERIFIERS = {name for name, function in FUNCTIONS.items() if not function.args}


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
    """One setting while drafts are put together: its value, what stands in its braces, or both."""

    key: s.Name
    value: Bound | None = None
    group: dict[str, Slot] = field(default_factory=dict)

    def copy(self) -> Slot:
        return Slot(self.key, self.value, {key: slot.copy() for key, slot in self.group.items()})


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


@dataclass(slots=True, eq=False)
class Scope:
    """The names of one file. ``prefix`` is empty in the recipe itself, else the module's name and a dot.

    ``broken`` are names whose definition was refused: that they are unknown is not said again. ``is_broken`` is a
    module that could not be read at all.
    """

    file: SourceFile = field(repr=False)
    folder: Path
    prefix: str
    layer: Layer
    lets: dict[str, Bound] = field(default_factory=dict)
    drafts: dict[str, Draft] = field(default_factory=dict)
    modules: dict[str, Scope] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    seed: Bound | None = None
    budget: dict[str, Slot] = field(default_factory=dict)
    allowed: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    is_broken: bool = False

    def names(self) -> list[str]:
        return [*self.drafts, *self.lets, *self.modules]


Found: TypeAlias = Bound | Draft | Scope


def resolve(file: s.File, folder: Path, reporter: Reporter, overrides: Sequence[str] = ()) -> Scope:
    """The names of a recipe with everything it uses; ``overrides`` are ``path=value``, the last layer."""
    scope = _scope(file, folder, "", "file", reporter, (folder / file.source.path.name,))
    for override in overrides:
        _override(scope, override, reporter)
    return scope


def look_up(scope: Scope, expr: s.Expr) -> Found | None:
    """What a name or dotted name stands for; None if it is neither or stands for nothing.

    The dotted part ends at a declaration: ``formats.think_answer.system`` is looked up up to ``think_answer``.
    """
    match expr:
        case s.Name():
            found: dict[str, Found] = {**scope.modules, **scope.lets, **scope.drafts}
            return found.get(expr.id)
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
        elif isinstance(base, Scope) and not (base.is_broken or expr.name.id in base.broken):
            hint = did_you_mean(expr.name.id, base.names(), "it has")
            module = base.prefix.rstrip(".")
            reporter.error("E201", f"`{module}` has no `{expr.name.id}`", expr.name.span, hint)
        return
    if expr.id in scope.broken:
        return
    hint = did_you_mean(expr.id, scope.names())
    if hint is None and (Path(_stdlib()) / f"{expr.id}.omr").exists():
        hint = f"`use std.{expr.id}` at the top of the file brings it in"
    reporter.error("E201", f"unknown name `{expr.id}`", expr.span, hint)


# ---- files -------------------------------------------------------------------------------------


def read_source(path: Path, shown: Path, at: Span | None, reporter: Reporter) -> SourceFile | None:
    """A file's text, or None after a report at ``at`` (at the file itself if there is no such place)."""
    span = at or Span(SourceFile(shown, ""), 0, 0)
    try:
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            reporter.error("E106", f"{shown} is over {MAX_CHARACTERS // 10**6} MB", span)
            return None
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        reporter.error("E106", f"{shown} does not exist", span)
    except UnicodeDecodeError as error:
        reporter.error("E106", f"{shown} is no UTF-8 text (byte {error.start})", span)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reporter.error("E106", f"{shown} cannot be read: {reason}", span)
    else:
        return SourceFile(shown, text)
    return None


def _stdlib() -> Path:
    """In a wheel the library lies inside the package, in a checkout beside it."""
    inside = Path(__file__).with_name("_stdlib")
    return inside if inside.is_dir() else Path(__file__).parents[1] / "stdlib"


def _scope(
    file: s.File,
    folder: Path,
    prefix: str,
    layer: Layer,
    reporter: Reporter,
    loading: tuple[Path, ...],
) -> Scope:
    scope = Scope(file.source, folder, prefix, layer, broken=set(file.broken))
    for statement in file.statements:
        _define(scope, statement, reporter, loading)
    return scope


def _define(
    scope: Scope, statement: s.Statement, reporter: Reporter, loading: tuple[Path, ...]
) -> None:
    match statement:
        case s.Version():
            _version(statement, reporter)
        case s.Use():
            _use(scope, statement, reporter, loading)
        case s.Let():
            if _new_name(scope, statement.name, reporter, "let"):
                scope.lets[statement.name.id] = Bound(statement.value, scope, scope.layer)
        case s.Assign():
            _assign(scope, statement, reporter)
        case s.Declaration():
            _declare(scope, statement, reporter)
        case s.Reopen():
            _reopen(scope, statement, reporter)
        case s.Amend():
            reporter.error("E401", "`amend` is not supported by this version", statement.span)
        case s.Because():
            pass
        case s.Allow():
            scope.allowed[statement.code.id] = statement.because.value
        case _:
            assert_never(statement)


def _version(statement: s.Version, reporter: Reporter) -> None:
    if statement.number.value != 1:
        reporter.error("E109", "this version of omr reads `omr 1`", statement.number.span)


def _assign(scope: Scope, statement: s.Assign, reporter: Reporter) -> None:
    if statement.name.id != "seed":
        hint = (
            did_you_mean(statement.name.id, ["seed"])
            or f"`let {statement.name.id} = …` names a value"
        )
        reporter.error("E203", f"unknown key `{statement.name.id}`", statement.name.span, hint)
        return
    if scope.seed is not None:
        reporter.error("E206", "`seed` is given twice", statement.name.span)
    scope.seed = Bound(statement.value, scope, scope.layer)


# ---- names -------------------------------------------------------------------------------------


def _new_name(scope: Scope, name: s.Name, reporter: Reporter, what: str) -> bool:
    """Whether a name may be given; reports if it is taken or hides something of the row."""
    if name.id in scope.spans:
        related = ((scope.spans[name.id], "the first one"),)
        reporter.error("E205", f"`{name.id}` is defined twice", name.span, None, related)
        return False
    hides = "a column of the row" if name.id in COLUMNS else None
    if name.id in BARE_VERIFIERS or (what == "let" and name.id in FUNCTIONS):
        hides = "a verifier" if name.id in BARE_VERIFIERS else "a function"
    if hides:
        reporter.error("E213", f"`{name.id}` is the name of {hides}", name.span)
    scope.spans[name.id] = name.span
    return True


def _use(scope: Scope, use: s.Use, reporter: Reporter, loading: tuple[Path, ...]) -> None:
    found = _module(scope, use, reporter)
    if found is None:
        return
    path, shown, name = found
    if path in loading:
        reporter.error("E212", f"{shown} uses itself", use.module.span)
        return
    if not _new_name(scope, name, reporter, "module"):
        return
    source = read_source(path, shown, use.module.span, reporter)
    if source is None:
        scope.modules[name.id] = Scope(
            scope.file, scope.folder, f"{name.id}.", scope.layer, is_broken=True
        )
        return
    layer: Layer = "stdlib" if path.parent == _stdlib() else "file"
    tree = parse(source, reporter)
    prefix = f"{scope.prefix}{name.id}."
    scope.modules[name.id] = _scope(tree, path.parent, prefix, layer, reporter, (*loading, path))


def _module(scope: Scope, use: s.Use, reporter: Reporter) -> tuple[Path, Path, s.Name] | None:
    """The file of a ``use``, how it is shown, and the name it is bound to."""
    if isinstance(use.module, s.Text):
        if use.alias is None:
            hint = 'such as `use "lib/teachers.omr" as teachers`'
            reporter.error("E207", "a file that is used needs a name", use.module.span, hint)
            return None
        relative = Path(use.module.value)
        return scope.folder / relative, scope.file.path.parent / relative, use.alias
    parts = use.module.span.text.split(".")
    known = sorted(path.stem for path in _stdlib().glob("*.omr"))
    if len(parts) != 2 or parts[0] != "std" or parts[1] not in known:
        scope.broken |= {
            parts[-1],
            nearest(parts[-1], known) or "",
            use.alias.id if use.alias else "",
        }
        names = [f"std.{stem}" for stem in known]
        near = did_you_mean(use.module.span.text, names, "there are")
        reporter.error("E207", f"unknown module `{use.module.span.text}`", use.module.span, near)
        return None
    name = use.module.name if isinstance(use.module, s.Attr) else None
    assert name is not None, "a dotted name of two parts is an Attr"
    return _stdlib() / f"{parts[1]}.omr", Path("std") / f"{parts[1]}.omr", use.alias or name


def _declare(scope: Scope, declaration: s.Declaration, reporter: Reporter) -> None:
    kind, name = declaration.kind.id, declaration.name
    if kind not in STAGES and kind not in THINGS:
        if kind in ("verifier",):
            message = f"`{kind}` is not supported by this version"
            reporter.error("E401", message, declaration.kind.span)
        else:
            hint = did_you_mean(kind, [*STAGES, *THINGS], "kinds are")
            reporter.error("E202", f"unknown kind `{kind}`", declaration.kind.span, hint)
        scope.broken.add(name.id)
        return
    if not _new_name(scope, name, reporter, kind):
        return
    draft = Draft(kind, scope.prefix + name.id, name.span, scope)
    if declaration.base is not None:
        draft.base = Bound(declaration.base, scope, scope.layer)
    _merge(draft, declaration.clauses, declaration.block, scope, reporter)
    scope.drafts[name.id] = draft


def _reopen(scope: Scope, statement: s.Reopen, reporter: Reporter) -> None:
    word = ".".join(name.id for name in statement.path)
    span = statement.path[0].span.to(statement.path[-1].span)
    if word == "budget" and not statement.clauses and statement.block is not None:
        _merge_block(
            scope.budget, statement.block, Bound(s.Text(span, ""), scope, scope.layer), reporter
        )
    elif word in scope.drafts:
        hint = "a stage is re-opened by an amending file only"
        reporter.error("E205", f"`{word}` is defined twice", span, hint)
    else:
        near = did_you_mean(word, ["budget"]) or "a declaration is `KIND NAME …`"
        reporter.error("E201", f"unknown name `{word}`", span, near)


# ---- settings ----------------------------------------------------------------------------------


def _merge(
    draft: Draft,
    clauses: Sequence[s.ClauseExpr],
    block: s.Block | None,
    scope: Scope,
    reporter: Reporter,
) -> None:
    for clause in clauses:
        if clause.word in draft.clauses:
            reporter.error("E206", f"`{clause.word}` is given twice", clause.span)
        draft.clauses[clause.word] = Bound(clause.value, scope, scope.layer)
        draft.clause_spans[clause.word] = clause.span
    if block is not None:
        _merge_block(
            draft.settings, block, Bound(s.Text(draft.span, ""), scope, scope.layer), reporter
        )


def _merge_block(slots: dict[str, Slot], block: s.Block, origin: Bound, reporter: Reporter) -> None:
    """Put a block's entries into the slots; a setting given twice in one block is an error."""
    for entry in block.entries:
        slot = _slot(slots, entry.path)
        if isinstance(entry, s.Group):
            _merge_block(slot.group, entry.block, origin, reporter)
            continue
        if slot.value is not None and slot.value.layer == origin.layer:
            name = ".".join(part.id for part in entry.path)
            related = ((slot.value.expr.span, "the first one"),)
            reporter.error("E206", f"`{name}` is given twice", entry.path[-1].span, None, related)
        slot.key = entry.path[-1]
        slot.value = origin.of(entry.value)


def _slot(slots: dict[str, Slot], path: Sequence[s.Name]) -> Slot:
    for name in path[:-1]:
        slots = slots.setdefault(name.id, Slot(name)).group
    return slots.setdefault(path[-1].id, Slot(path[-1]))


def put(slots: dict[str, Slot], path: Sequence[s.Name], value: Bound) -> None:
    """Set a value, dropping what a lower layer had put in its braces."""
    slot = _slot(slots, path)
    slot.key, slot.value, slot.group = path[-1], value, {}


def layered(base: Draft, over: Draft) -> Draft:
    """``over`` on top of ``base``: a given clause or value replaces, groups merge."""
    merged = Draft(over.kind, over.name, over.span, over.scope, base.base)
    merged.clauses = {**base.clauses, **over.clauses}
    merged.clause_spans = {**base.clause_spans, **over.clause_spans}
    merged.settings = {key: slot.copy() for key, slot in base.settings.items()}
    _lay(merged.settings, over.settings)
    return merged


def _lay(slots: dict[str, Slot], over: dict[str, Slot]) -> None:
    for key, slot in over.items():
        if key not in slots or slot.value is not None:
            slots[key] = slot.copy()
        else:
            _lay(slots[key].group, slot.group)


# ---- --set -------------------------------------------------------------------------------------


def _override(scope: Scope, text: str, reporter: Reporter) -> None:
    """``path=value``: a let, the seed, or a setting of something that is declared."""
    path_text, sign, value_text = text.partition("=")
    file = SourceFile(Path("--set"), text)
    parts = path_text.strip().split(".")
    if not sign or not all(part.isidentifier() and part not in RESERVED for part in parts):
        reporter.error("E402", "an override is `path=value`", Span(file, 0, len(text)))
        return
    start = len(path_text) + 1
    value = _override_value(scope, file, value_text, start)
    names = _names(file, path_text)
    _apply(scope, names, Bound(value, scope, "set"), reporter)


def _override_value(scope: Scope, file: SourceFile, text: str, start: int) -> s.Expr:
    """The value as an expression; what is none, or names nothing, is a text."""
    expr = parse_expression(file, start)
    span = Span(file, start, start + len(text))
    if expr is None or (isinstance(expr, s.Name | s.Attr) and look_up(scope, expr) is None):
        return s.Text(span, text.strip())
    return expr


def _names(file: SourceFile, path: str) -> list[s.Name]:
    names, at = [], 0
    for part in path.split("."):
        lead = len(part) - len(part.lstrip())
        names.append(s.Name(Span(file, at + lead, at + lead + len(part.strip())), part.strip()))
        at += len(part) + 1
    return names


def _apply(scope: Scope, names: list[s.Name], value: Bound, reporter: Reporter) -> None:
    first, *rest = names
    if first.id in scope.modules and rest:
        _apply(scope.modules[first.id], rest, value, reporter)
    elif first.id in scope.drafts and rest:
        put(scope.drafts[first.id].settings, rest, value)
    elif first.id in scope.lets and not rest:
        scope.lets[first.id] = value
    elif first.id == "seed" and not rest:
        scope.seed = value
    else:
        is_draft = first.id in scope.drafts
        hint = did_you_mean(
            first.id, [*scope.drafts, *scope.modules] if rest else [*scope.lets, "seed"]
        )
        hint = f"`{first.id}.KEY=…` sets one of its settings" if is_draft else hint
        what = f"`{first.id}` is no setting" if is_draft else f"unknown name `{first.id}`"
        reporter.error("E402", what, first.span, hint)
