"""A cursor becomes the words that may be written there: kinds, clauses, keys, values, names, columns, functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lsprotocol.types import (
    CompletionItem,
    CompletionItemKind,
    InsertTextFormat,
    MarkupContent,
    MarkupKind,
    Position,
    Range,
    TextEdit,
)
from pydantic import BaseModel

from omrlang import declared
from omrlang.check.context import Columns
from omrlang.declared import Key
from omrlang.describe import (
    choice_text,
    facts,
    function_signature,
    function_text,
    setting_text,
    signature,
)
from omrlang.files import library_modules
from omrlang.functions import COLUMNS, FUNCTIONS, Asks, Function
from omrlang.lsp.columns import columns_of, draft_of
from omrlang.lsp.cursor import Cursor, cursor_at
from omrlang.lsp.paths import path_items, typed_path
from omrlang.lsp.positions import to_offset, to_position
from omrlang.lsp.standing import Wanted, draft_named, kind_of, wanted
from omrlang.lsp.view import View
from omrlang.scope import MAKES_MODEL, MAKES_ROWS, STAGES, THINGS, Draft, Scope
from omrlang.types import (
    COUNTED_BY,
    METRIC_DOCS,
    UNITS,
    Amount,
    Expect,
    Frozen,
    Gpu,
    Hardware,
    Model,
    Prompt,
    TrainedModel,
)
from omrlang.words import INSTEAD, KINDS, OPERATORS, STATEMENTS

TRIGGERS = [".", " ", "(", "=", "[", "{", ",", ":", "/", '"']
AMOUNTS = ("all", "up_to", "times")
_THINGS: dict[type[Frozen], tuple[str, ...]] = {
    Prompt: ("prompt",),
    Gpu: ("gpu",),
    Hardware: ("hardware", "gpu"),
}


def complete(
    view: View, position: Position, encoding: str, *, snippets: bool = True
) -> list[CompletionItem]:
    """What may stand at a position, best first; ``snippets`` have stops that the editor jumps to."""
    offset = to_offset(view.source, position, encoding)
    cursor = cursor_at(view.source, offset)
    start = cursor.start
    if cursor.standing == "text":
        items = [*path_items(view, cursor, offset)]
        start = offset - len(typed_path(view, offset)[1])
    else:
        items = [*_items(view, cursor)]
    place = Range(to_position(view.source, start, encoding), position)
    for index, item in enumerate(items):
        plain = item.insert_text is None or not snippets
        item.text_edit = TextEdit(place, item.label if plain else str(item.insert_text))
        item.insert_text_format = InsertTextFormat.PlainText if plain else InsertTextFormat.Snippet
        item.insert_text, item.sort_text = None, f"{index:04}"
    return items


def _items(view: View, cursor: Cursor) -> Iterable[CompletionItem]:
    match cursor.standing:
        case "text" | "comment":
            return ()
        case "start":
            return _statements(view)
        case "head":
            return _heads(view, cursor)
        case "key":
            return _keys(wanted(view, cursor).keys, cursor)
        case "value":
            return _values(view, cursor)


# ---- statements --------------------------------------------------------------------------------


def _statements(view: View) -> Iterator[CompletionItem]:
    for kind in KINDS:
        yield _item(kind, CompletionItemKind.Class, _kind_doc(kind), snippet=_skeleton(kind))
    for word, example in STATEMENTS.items():
        yield _item(word, CompletionItemKind.Keyword, f"`{example}`")
    if view.scope.height:
        for draft in view.scope.drafts.values():
            yield _item(draft.name, CompletionItemKind.Variable, detail=f"re-opens a {draft.kind}")


def _kind_doc(kind: str) -> str:
    clauses = [f"- `{word}`: {key.setting.doc}" for word, key in declared.clauses(kind).items()]
    needed = [key for key in declared.settings(kind).values() if key.required]
    lines = [f"- `{key.name}`: {key.setting.doc}" for key in needed]
    return "\n".join([*clauses, *lines])


def _skeleton(kind: str) -> str:
    """A declaration with the clauses and settings that it needs, as a snippet."""
    stops = iter(range(2, 99))
    head = [f"{kind} ${{1:name}}"]
    for word, clause in declared.clauses(kind).items():
        if clause.required:
            head.append(f"{word} ${{{next(stops)}}}")
    needed = [key for key in declared.settings(kind).values() if key.required]
    lines = [f"  {key.name} = ${{{next(stops)}}}\n" for key in needed]
    return f"{' '.join(head)} {{\n{''.join(lines)}  $0\n}}" if lines else " ".join(head)


def _heads(view: View, cursor: Cursor) -> Iterator[CompletionItem]:
    """After a kind and its name: clauses that are not given yet; after ``use``: modules."""
    first = cursor.words[0] if cursor.words else ""
    if first == "use":
        yield from _modules(cursor)
    elif first == "allow" and len(cursor.words) == 1:
        yield from (_item(code, CompletionItemKind.Constant, text) for code, text in _warnings())
    elif len(cursor.words) > 1 or (view.scope.height and draft_named(view.scope, cursor.words)):
        for word, key in declared.clauses(kind_of(view, cursor)).items():
            if word not in cursor.frame.given:
                yield _item(word, CompletionItemKind.Keyword, key.setting.doc)


def _modules(cursor: Cursor) -> Iterator[CompletionItem]:
    for name in library_modules():
        label = name if cursor.chain == ("std",) else f"std.{name}"
        yield _item(label, CompletionItemKind.Module)


def _warnings() -> Iterator[tuple[str, str]]:
    from omrlang.diagnostics import CODES

    return ((code.code, code.summary) for code in CODES.values() if code.code.startswith("W"))


# ---- keys --------------------------------------------------------------------------------------


def _keys(keys: declared.Keys, cursor: Cursor) -> Iterator[CompletionItem]:
    """The settings that are not given yet; of a group of which one is needed none once one is given."""
    prefix = ".".join(cursor.chain)
    if prefix:
        owner = declared.at(keys, cursor.chain)
        keys = owner.inside if owner else {}
    here = f"{prefix}." if prefix else ""
    given = set(cursor.frame.given) - {here + cursor.word}
    groups = {keys[name].setting.one_of for name in given if name in keys} - {None}
    left = [key for name, key in keys.items() if here + name not in given]
    for key in sorted(left, key=lambda key: not key.required):
        if key.setting.one_of not in groups:
            yield _key(key)


def _key(key: Key) -> CompletionItem:
    braces = bool(key.inside) and not key.choices and not key.words
    snippet = f"{key.name} {{\n  $0\n}}" if braces else f"{key.name} = $0"
    detail = " · ".join(facts(key)).replace("`", "")
    return _item(key.name, CompletionItemKind.Property, setting_text(key), detail, snippet)


# ---- values ------------------------------------------------------------------------------------


def _values(view: View, cursor: Cursor) -> Iterator[CompletionItem]:
    want = wanted(view, cursor)
    if cursor.chain:
        yield from _after_dot(view, cursor, want)
    elif cursor.operand:
        yield from _after_operand(cursor, want)
    else:
        for key in want.keys.values():
            if key.name not in cursor.frame.given:
                item = _key(key)
                item.insert_text = f"{key.name} = $0"
                yield item
        yield from _operands(view, cursor, want)
        yield from _instead(view, cursor, want)


def _instead(view: View, cursor: Cursor, want: Wanted) -> Iterator[CompletionItem]:
    """What may stand in place of any setting's value."""
    if cursor.frame.bracket != "{" or want.key is None or not want.key.is_setting:
        return
    for word, doc in INSTEAD.items():
        if word != "default" or view.scope.height:
            snippet = f"{word}($0)" if word == "sweep" else None
            yield _item(word, CompletionItemKind.Keyword, doc, snippet=snippet)


def _after_operand(cursor: Cursor, want: Wanted) -> Iterator[CompletionItem]:
    if cursor.number:
        setting = want.key.setting if want.key else None
        own = (setting.units or ((setting.unit,) if setting.unit else ())) if setting else ()
        units = own or (() if want.key else tuple(UNITS))
        yield from (_item(unit, CompletionItemKind.Unit) for unit in units if unit != "fraction")
    elif want.is_row:
        yield from (_item(word, CompletionItemKind.Operator) for word in OPERATORS if word != "not")


def _operands(view: View, cursor: Cursor, want: Wanted) -> Iterator[CompletionItem]:
    if cursor.words[:1] in (("use",), ("amend",), ("because",), ("allow",)):
        return
    key = want.key
    if want.amount:
        yield from _amounts()
    elif want.is_row:
        yield from _row(view, cursor, want)
    elif key is None:
        yield from _anything(view, cursor)
    elif Expect in key.branches:
        yield from _limits(view, cursor, want)
    else:
        yield from _declared(view, key)


def _limits(view: View, cursor: Cursor, want: Wanted) -> Iterator[CompletionItem]:
    """The numbers of a stage of this kind, and what `share` can be of."""
    if want.function == "share":
        yield from _names(view.scope, MAKES_ROWS)
        return
    kind = kind_of(view, cursor)
    for metric, doc in METRIC_DOCS.items():
        if kind in COUNTED_BY.get(metric, (kind,)):
            snippet = "share($0)" if metric == "share" else None
            yield _item(metric, CompletionItemKind.Field, doc, snippet=snippet)


def _declared(view: View, key: Key) -> Iterator[CompletionItem]:
    """The values that a setting or clause takes."""
    yield from (_item(word, CompletionItemKind.EnumMember) for word in key.words)
    if bool in key.branches:
        yield from (_item(word, CompletionItemKind.Constant) for word in ("true", "false"))
    for word, model in key.choices.items():
        if model not in _THINGS and model is not TrainedModel:
            yield _choice(word, model)
    kinds = _kinds(key)
    if kinds is not None:
        yield from _names(view.scope, kinds)
    elif not key.words:
        yield from _lets(view.scope)
    if Amount in key.branches:
        units = (unit for unit in key.setting.units if unit != "fraction")
        yield from (
            _item(f"1 {unit}", CompletionItemKind.Unit, snippet=f"${{1:1}} {unit}")
            for unit in units
        )
    if key.takes_none:
        yield _item("none", CompletionItemKind.Constant)


def _kinds(key: Key) -> tuple[str, ...] | None:
    """The kinds of declarations whose names are a value of this key."""
    for branch in key.branches:
        if branch in _THINGS:
            return _THINGS[branch]
        if branch is Model:
            return ("model", *MAKES_MODEL) if TrainedModel in key.branches else ("model",)
    if key.name == "from" and not key.choices:
        return MAKES_ROWS
    if key.name == "model":
        return ("model",)
    return None


def _anything(view: View, cursor: Cursor) -> Iterator[CompletionItem]:
    """The value of a ``let``, or the stage that a stage derives from."""
    kind = cursor.words[0] if cursor.words else ""
    yield from _names(view.scope, (kind,) if kind in KINDS else KINDS)


def _choice(word: str, model: type[BaseModel]) -> CompletionItem:
    detail = signature(word, model)
    return _item(word, CompletionItemKind.Function, choice_text(word, model), detail, f"{word}($0)")


def _amounts() -> Iterator[CompletionItem]:
    for word in AMOUNTS:
        snippet = word if word == "all" else f"{word}($0)"
        yield _item(word, CompletionItemKind.EnumMember, snippet=snippet)


# ---- names -------------------------------------------------------------------------------------


def _after_dot(view: View, cursor: Cursor, want: Wanted) -> Iterator[CompletionItem]:
    """The names of a module, or the parts of a declared thing."""
    scope = view.scope
    for index, word in enumerate(cursor.chain):
        if word in scope.modules:
            scope = scope.modules[word]
            continue
        draft = scope.drafts.get(word) if index == len(cursor.chain) - 1 else None
        if draft is not None and draft.kind in THINGS:
            yield from (
                _item(key.name, CompletionItemKind.Field, setting_text(key))
                for key in declared.settings(draft.kind).values()
            )
        return
    kinds = _kinds(want.key) if want.key else None
    yield from _names(scope, kinds or KINDS, dotted=False)
    yield from _lets(scope)


def _names(
    scope: Scope, kinds: tuple[str, ...], prefix: str = "", *, dotted: bool = True
) -> Iterator[CompletionItem]:
    """Declarations of some kinds, those of the file's modules after its own, and what else leads to one."""
    for name, draft in scope.drafts.items():
        if draft.kind in kinds:
            yield _declaration(f"{prefix}{name}", draft)
    if not dotted:
        return
    if not prefix:
        yield from _lets(scope)
    for name, module in scope.modules.items():
        yield from _names(module, kinds, f"{prefix}{name}.", dotted=prefix == "")


def _declaration(label: str, draft: Draft) -> CompletionItem:
    kind = CompletionItemKind.Variable if draft.kind in STAGES else CompletionItemKind.Constant
    return _item(label, kind, detail=draft.kind)


def _lets(scope: Scope) -> Iterator[CompletionItem]:
    for name, bound in scope.lets.items():
        yield _item(name, CompletionItemKind.Constant, detail=f"= {bound.expr.span.text}")


# ---- row expressions ---------------------------------------------------------------------------


def _row(view: View, cursor: Cursor, want: Wanted) -> Iterator[CompletionItem]:
    function = FUNCTIONS.get(want.function or "")
    if function is not None and function.asks in _NAMES_OF:
        yield from _asked(view, cursor, function)
        return
    columns = _columns(view, cursor)
    known: dict[str, str] = dict(columns.names if columns.names is not None else COLUMNS)
    for name, type_ in known.items():
        yield _item(name, CompletionItemKind.Field, detail=f"column, {type_}")
    for item in FUNCTIONS.values():
        yield _function(item)
    yield from _lets(view.scope)


def _columns(view: View, cursor: Cursor) -> Columns:
    """The columns at the cursor. A source's ``where`` looks at rows that are mapped already."""
    kind = kind_of(view, cursor)
    inside = cursor.frames[1] if len(cursor.frames) > 1 else cursor.frame
    if kind in ("source", "benchmark") and "where" in inside.key:
        return Columns(None)
    draft = draft_of(view, view.source.text[slice(*cursor.head)])
    draft = draft or draft_named(view.scope, cursor.words)
    return columns_of(view, draft) if draft and kind in STAGES else Columns(None)


_NAMES_OF: dict[Asks, tuple[str, ...]] = {
    "model": ("model", *MAKES_MODEL),
    "stage": ("filter",),
    "rows": MAKES_ROWS,
}
"""The kinds of declarations that a function is given the names of."""


def _asked(view: View, cursor: Cursor, function: Function) -> Iterator[CompletionItem]:
    """What ``judge``, ``pass_rate`` and ``seen_in`` take: a model, a filter or row sets, then named arguments."""
    key = "".join(cursor.frame.key)
    if key:
        words = {"sees": ("answer", "response"), "question": ("true", "false")}.get(key, ())
        yield from (_item(word, CompletionItemKind.EnumMember) for word in words)
        return
    if cursor.frame.index == 0 or function.asks == "rows":
        yield from _names(view.scope, _NAMES_OF[function.asks])
    for name, type_ in function.named:
        if name not in cursor.frame.given:
            snippet = f"{name} = $0"
            yield _item(name, CompletionItemKind.Property, detail=type_, snippet=snippet)


def _function(function: Function) -> CompletionItem:
    takes = function.args or function.named or function.asks in _NAMES_OF
    return _item(
        function.name,
        CompletionItemKind.Function,
        function_text(function),
        function_signature(function),
        f"{function.name}($0)" if takes else None,
    )


def _item(
    label: str,
    kind: CompletionItemKind,
    doc: str = "",
    detail: str | None = None,
    snippet: str | None = None,
) -> CompletionItem:
    return CompletionItem(
        label=label,
        kind=kind,
        detail=detail,
        documentation=MarkupContent(MarkupKind.Markdown, doc) if doc else None,
        insert_text=snippet,
    )
