"""Syntax to a program of drafts: which name stands for what, in which file, and which layer set each value.

Nothing is evaluated here. A draft is a declaration whose values are still expressions, each bound to the scope in
which its names mean something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import assert_never

from omrlang import syntax as s
from omrlang.diagnostics import CODES, Reporter, did_you_mean, nearest
from omrlang.files import library_folder, library_modules, read_source
from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.hir import Layer
from omrlang.parse import parse, parse_statement, statement_starts
from omrlang.scope import STAGES, THINGS, Draft, Scope, Slot, put, slot_at
from omrlang.source import Span
from omrlang.unsaved import real_path

BARE_VERIFIERS = {name for name, function in FUNCTIONS.items() if not function.args}


_DECLARES = re.compile(r"(\w+)[ \t]+(\w+)")


def resolve(
    file: s.File, folder: Path, reporter: Reporter, chosen: Mapping[Span, s.Expr] | None = None
) -> Scope:
    """The names of a recipe with everything that it uses and amends.

    ``chosen`` maps the places of sweeps to the values that they stand for in one variant.
    """
    path = real_path(folder / file.source.path.name)
    return _recipe(file, folder, reporter, (path,), chosen or {})


# ---- files -------------------------------------------------------------------------------------


def _recipe(
    file: s.File,
    folder: Path,
    reporter: Reporter,
    loading: tuple[Path, ...],
    chosen: Mapping[Span, s.Expr],
) -> Scope:
    """A recipe file's names, on top of those of the file that it amends."""
    _at_the_top(file.statements, reporter)
    amends = [statement for statement in file.statements if isinstance(statement, s.Amend)]
    if not amends:
        scope = Scope(file.source, folder, "", "file", folder, broken=set(file.broken))
        scope.is_broken = "amend" in file.broken
        scope.chosen = chosen
        return _defined(scope, file, reporter, loading)
    base = _amended(file, amends[0], folder, reporter, loading, chosen)
    if base is None:
        scope = Scope(file.source, folder, "", "amend", folder, is_broken=True)
        return _defined(scope, file, reporter, loading)
    scope = replace(
        base, file=file.source, folder=folder, layer="amend", height=base.height + 1, because=None
    )
    scope.broken |= file.broken
    return _defined(scope, file, reporter, loading)


def _at_the_top(statements: Sequence[s.Statement], reporter: Reporter) -> None:
    """`omr 1` and `amend` speak of the whole file, so they come before all else, each once."""
    seen: set[type[s.Statement]] = set()
    for statement in statements:
        before: set[type[s.Statement]] = {s.Version} if isinstance(statement, s.Amend) else set()
        if isinstance(statement, s.Version | s.Amend):
            word = "omr 1" if isinstance(statement, s.Version) else "amend"
            if type(statement) in seen:
                reporter.error("E206", f"`{word}` is given twice", statement.span)
            elif seen - before:
                hint = "it is about the whole file: move it to the top"
                reporter.error(
                    "E404", f"`{word}` comes after other statements", statement.span, hint
                )
        seen.add(type(statement))


def _amended(
    file: s.File,
    amend: s.Amend,
    folder: Path,
    reporter: Reporter,
    loading: tuple[Path, ...],
    chosen: Mapping[Span, s.Expr],
) -> Scope | None:
    """The scope of the base; None after a report."""
    relative = Path(amend.file.value)
    path, shown = real_path(folder / relative), file.source.path.parent / relative
    if path in loading:
        reporter.error("E212", f"{shown} amends itself", amend.file.span)
        return None
    source = read_source(path, shown, amend.file.span, reporter)
    if source is None:
        return None
    tree = parse(source, reporter)
    return _recipe(tree, path.parent, reporter, (*loading, path), chosen)


def _defined(scope: Scope, file: s.File, reporter: Reporter, loading: tuple[Path, ...]) -> Scope:
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
            if _is_bound_below(scope, statement) or _new_name(
                scope, statement.name, reporter, "let"
            ):
                scope.lets[statement.name.id] = scope.bind(statement.value)
        case s.Assign():
            _assign(scope, statement, reporter)
        case s.Declaration():
            _declare(scope, statement, reporter)
        case s.Reopen():
            _reopen(scope, statement, reporter)
        case s.Amend():
            if scope.prefix:
                hint = "`use` brings in names; a recipe amends"
                reporter.error("E404", "a module amends nothing", statement.span, hint)
        case s.Because():
            if scope.because is not None:
                reporter.error("E206", "`because` is given twice", statement.span)
            scope.because = statement.text.value
        case s.Allow():
            _allow(scope, statement.code, reporter)
        case _:
            assert_never(statement)


def _allow(scope: Scope, code: s.Name, reporter: Reporter) -> None:
    if code.id in CODES and code.id.startswith("W"):
        before = scope.allowed.get(code.id)
        if before is not None and before.file == code.span.file:
            related = ((before, "the first one"),)
            reporter.error("E206", f"`allow {code.id}` is given twice", code.span, None, related)
        scope.allowed[code.id] = code.span
        return
    hint = did_you_mean(code.id, [known for known in CODES if known.startswith("W")])
    what = "is an error, not a warning" if code.id in CODES else "is no warning"
    reporter.error("E211", f"`{code.id}` {what}", code.span, hint)


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
    if scope.seed is not None and scope.seed.scope is scope:
        reporter.error("E206", "`seed` is given twice", statement.name.span)
    scope.seed = scope.bind(statement.value)


def _is_bound_below(scope: Scope, let: s.Let) -> bool:
    """Whether a `let` binds anew what a file below has bound."""
    before = scope.lets.get(let.name.id)
    return before is not None and before.scope is not scope


# ---- names -------------------------------------------------------------------------------------


def _new_name(scope: Scope, name: s.Name, reporter: Reporter, what: str) -> bool:
    """Whether a name may be given; reports if it is taken or hides something of the row."""
    if name.id in scope.spans:
        related = ((scope.spans[name.id], "the first one"),)
        reporter.error("E205", f"`{name.id}` is defined twice", name.span, None, related)
        return False
    hides = "a column of the row" if name.id in COLUMNS else None
    if name.id in BARE_VERIFIERS or (what in ("let", "verifier") and name.id in FUNCTIONS):
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
    path = real_path(path)
    if path in loading:
        reporter.error("E212", f"{shown} uses itself", use.module.span)
        return
    known = scope.modules.get(name.id)
    if scope.height and known is not None and real_path(known.file.path) == real_path(shown):
        return
    if not _new_name(scope, name, reporter, "module"):
        return
    source = read_source(path, shown, use.module.span, reporter)
    if source is None:
        scope.modules[name.id] = Scope(
            scope.file, scope.folder, f"{name.id}.", scope.layer, is_broken=True
        )
        return
    layer: Layer = "stdlib" if path.parent == library_folder().resolve() else "file"
    module = Scope(source, path.parent, f"{scope.prefix}{name.id}.", layer, scope.home)
    scope.modules[name.id] = module
    if layer == "stdlib":
        _library(module, reporter, (*loading, path))
        return
    tree = parse(source, reporter)
    module.broken |= tree.broken
    _at_the_top([part for part in tree.statements if not isinstance(part, s.Amend)], reporter)
    _defined(module, tree, reporter, (*loading, path))


def _library(module: Scope, reporter: Reporter, loading: tuple[Path, ...]) -> None:
    """Define what a module of the library says; a declaration once it is asked for."""
    text = module.file.text
    for start, end in pairwise([*statement_starts(module.file), len(text)]):
        found = _DECLARES.match(text, start)
        read = partial(_read, module, start, end, reporter, loading)
        if found is not None and found[1] in (*STAGES, *THINGS):
            module.drafts.later(found[2], read)
        else:
            read()


def _read(
    module: Scope, start: int, end: int, reporter: Reporter, loading: tuple[Path, ...]
) -> None:
    statement = parse_statement(module.file, start, end)
    assert statement is not None, "the standard library parses"
    _define(module, statement, reporter, loading)


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
    known = library_modules()
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
    return library_folder() / f"{parts[1]}.omr", Path("std") / f"{parts[1]}.omr", use.alias or name


def _declare(scope: Scope, declaration: s.Declaration, reporter: Reporter) -> None:
    kind, name = declaration.kind.id, declaration.name
    if kind not in STAGES and kind not in THINGS:
        hint = did_you_mean(kind, [*STAGES, *THINGS], "kinds are")
        if kind == "allow":
            hint = f'it says why: `allow {name.id} because "…"`'
        reporter.error("E202", f"unknown kind `{kind}`", declaration.kind.span, hint)
        scope.broken.add(name.id)
        return
    if not _new_name(scope, name, reporter, kind):
        return
    draft = Draft(kind, scope.prefix + name.id, name.span, scope)
    if declaration.base is not None:
        draft.base = scope.bind(declaration.base)
    _merge(draft, declaration.clauses, declaration.block, scope, reporter)
    scope.drafts[name.id] = draft


def _reopen(scope: Scope, statement: s.Reopen, reporter: Reporter) -> None:
    """``budget { … }``, or what an amending file changes of a thing that exists below it."""
    if statement.path[0].id == "budget" and not statement.clauses and statement.block is not None:
        _merge_block(scope.budget, statement.block, scope, reporter)
        return
    *owners, name = statement.path
    owner: Scope | None = scope
    for part in owners:
        owner = owner.modules.get(part.id) if owner is not None else None
    draft = owner.drafts.get(name.id) if owner is not None else None
    if draft is None:
        _report_not_there(scope, statement, reporter)
    elif scope.height == 0 or draft.scope is scope:
        hint = "a stage is re-opened by an amending file only"
        reporter.error("E205", f"`{name.id}` is defined twice", name.span, hint)
    else:
        _merge(draft, statement.clauses, statement.block, scope, reporter)


def _report_not_there(scope: Scope, statement: s.Reopen, reporter: Reporter) -> None:
    word = ".".join(name.id for name in statement.path)
    if scope.has_lost(word):
        return
    span = statement.path[0].span.to(statement.path[-1].span)
    known = ["budget", *scope.drafts]
    for module in scope.modules.values():
        known += [f"{module.prefix}{name}" for name in module.drafts]
    otherwise = None if scope.height else "a declaration is `KIND NAME …`"
    if word in STAGES or word in THINGS:
        otherwise = f"a name stands behind the kind: `{word} NAME …`"
    near = did_you_mean(word, known) or otherwise
    what = "the base has no" if scope.height else "unknown name"
    reporter.error("E201", f"{what} `{word}`", span, near)


# ---- settings ----------------------------------------------------------------------------------


def _merge(
    draft: Draft,
    clauses: Sequence[s.ClauseExpr],
    block: s.Block | None,
    scope: Scope,
    reporter: Reporter,
) -> None:
    for clause in clauses:
        before = draft.clauses.get(clause.word)
        if before is not None and before.scope is scope:
            reporter.error("E206", f"`{clause.word}` is given twice", clause.span)
        draft.clauses[clause.word] = scope.bind(clause.value)
        draft.clause_spans[clause.word] = clause.span
    if block is not None:
        _merge_block(draft.settings, block, scope, reporter)


def _merge_block(slots: dict[str, Slot], block: s.Block, scope: Scope, reporter: Reporter) -> None:
    """Put a block's entries into the slots; a setting given twice in one file is an error."""
    for entry in block.entries:
        if isinstance(entry, s.Group):
            _merge_block(slot_at(slots, entry.path).group, entry.block, scope, reporter)
            continue
        slot = slot_at(slots, entry.path)
        if slot.value is not None and slot.value.scope is scope:
            name = ".".join(part.id for part in entry.path)
            related = ((slot.value.expr.span, "the first one"),)
            reporter.error("E206", f"`{name}` is given twice", entry.path[-1].span, None, related)
        kept = {key: part for key, part in slot.group.items() if _is_from(part, scope)}
        put(slots, entry.path, scope.bind(entry.value))
        slot.group = kept


def _is_from(slot: Slot, scope: Scope) -> bool:
    """Whether a file set this, or something in its braces."""
    own = slot.value is not None and slot.value.scope is scope
    return own or any(_is_from(part, scope) for part in slot.group.values())
