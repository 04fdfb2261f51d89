"""A cursor becomes what the language wants there: a key of some braces, or a value that is declared so."""

from __future__ import annotations

from dataclasses import dataclass, field

from omrlang import declared
from omrlang.declared import Key, Keys
from omrlang.lsp.cursor import Cursor, Frame
from omrlang.lsp.view import View
from omrlang.scope import Draft, Scope
from omrlang.types import Expect


@dataclass(frozen=True, slots=True)
class Wanted:
    """``keys`` may be written here, named; ``key`` is how the value here is declared, None where any will do.

    ``function`` is the row function whose arguments these are. ``amount`` is the place behind the colon of a mix.
    """

    keys: Keys = field(default_factory=dict)
    key: Key | None = None
    function: str | None = None
    amount: bool = False

    @property
    def is_row(self) -> bool:
        return self.key is not None and self.key.over_rows


def wanted(view: View, cursor: Cursor) -> Wanted:
    """What stands at the cursor, from the outermost bracket in."""
    here = Wanted()
    for frame in cursor.frames:
        here = _within(view, cursor, frame, here)
    return here


def _within(view: View, cursor: Cursor, frame: Frame, outer: Wanted) -> Wanted:
    match frame.bracket:
        case "":
            kind, word = kind_of(view, cursor), "".join(frame.key)
            base = declared.base(kind) if word == "=" else None
            return Wanted(key=base or declared.clauses(kind).get(word))
        case "{":
            keys = outer.keys if frame.head else declared.settings(kind_of(view, cursor))
            if frame.head:
                owner = declared.at(keys, frame.head)
                keys = owner.inside if owner else {}
            return Wanted(key=declared.at(keys, frame.key)) if frame.key else Wanted(keys)
        case "(":
            return _argument(frame, outer)
        case _:
            return Wanted(key=outer.key, function=outer.function, amount=frame.amount)


def _argument(frame: Frame, outer: Wanted) -> Wanted:
    word = ".".join(frame.head)
    if outer.is_row:
        return Wanted(key=outer.key, function=word or outer.function)
    if outer.key is not None and Expect in outer.key.branches:
        return Wanted(key=outer.key, function=word or outer.function)
    if outer.key is None or word not in outer.key.choices:
        return Wanted(key=outer.key, amount=outer.amount)
    known = declared.arguments(outer.key.choices[word])
    in_order = list(known.values())
    key = known.get("".join(frame.key)) if frame.key else None
    if not frame.key and in_order and in_order[0].several:
        key = in_order[0]
    elif not frame.key and frame.index < len(in_order):
        key = in_order[frame.index]
    return Wanted({} if frame.key else known, key)


def kind_of(view: View, cursor: Cursor) -> str:
    """The kind of the statement: its first word, or what an amending file re-opens."""
    words = cursor.words
    draft = draft_named(view.scope, words)
    if draft is not None and view.scope.height:
        return draft.kind
    return words[0] if words else ""


def draft_named(scope: Scope, words: tuple[str, ...]) -> Draft | None:
    """The declaration that dotted words lead to."""
    found: Scope | None = scope
    for word in words[:-1]:
        found = found.modules.get(word) if found else None
    return found.drafts.get(words[-1]) if found and words else None
