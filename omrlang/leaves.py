"""A stage's specification becomes its leaves: every smallest value with its path, its canonical form and its class.

Alone knows which parts of a value decide less than the setting that holds it, and how names give way to what they
stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from pydantic import BaseModel

from omrlang.functions import FUNCTIONS
from omrlang.references import declarations, nodes
from omrlang.schema import KINDS, Rl, Sft, Spec
from omrlang.settle import settle
from omrlang.shown import shown, shown_amount, shown_hardware
from omrlang.types import (
    All,
    Amount,
    Between,
    Binary,
    Call,
    Clause,
    Col,
    Expect,
    ExprNode,
    Hardware,
    Index,
    ListOf,
    Lit,
    MixPart,
    Model,
    Range,
    RowExpr,
    RowSets,
    SettingClass,
    TrainedModel,
    Unary,
    word_of,
)
from omrlang.walk import children

Canonical: TypeAlias = bool | int | float | str | list["Canonical"] | None
Parents: TypeAlias = Mapping[str, str]

LOCAL_PATHS = ("folder", "parquet", "jsonl", "json", "csv", "webdataset")
"""Kinds of places and models whose ``path`` is replaced by the content that it leads to."""

FIELD_CLASS: dict[tuple[str, str], SettingClass] = {
    ("Model", "name"): "meta",
    ("Model", "shape"): "meta",
    ("Model", "licence"): "meta",
    ("Model", "engine"): "speed",
    ("Prompt", "name"): "meta",
    ("CrossEntropy", "fused"): "speed",
}
"""Fields of values that decide less than the setting which holds the value."""


CODE = " code"
"""How the path of a leaf ends that holds the hash of code."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One smallest value of a stage. ``key`` is hashed and free of names; ``path`` and ``shown`` are for people.

    ``parent`` is the name of the stage that the leaf refers to, ``branch`` marks which kind of thing was chosen,
    ``default`` an argument that has the value which its kind of thing has by itself.
    """

    key: str
    path: str
    value: Canonical
    shown: str
    cls: SettingClass
    parent: str | None = None
    branch: bool = False
    default: bool = False

    def under(self, names: Mapping[str, str]) -> Leaf:
        """The same leaf where stages go by other names."""
        if self.parent is None or self.parent not in names:
            return self
        new = names[self.parent]
        path = (
            self.path.replace(f".{self.parent}", f".{new}")
            if self.path.endswith(f".{self.parent}")
            else self.path
        )
        shown = new if self.shown == self.parent else self.shown
        return replace(self, path=path, shown=shown, parent=new)


def leaves(
    spec: Spec, parents: Parents, revision: str | None, *, as_written: bool = False
) -> tuple[Leaf, ...]:
    """Every value of a stage: clauses, settings, seed, version and revision, whatever their class. Derived values stand
    in the place of what they were derived from, unless they are wanted ``as_written``."""
    cls: SettingClass = "weights" if isinstance(spec, Sft | Rl) else "rows"
    settled = spec if as_written else settle(spec)
    found = [
        Leaf("kind", "kind", spec.kind, spec.kind, cls),
        Leaf("version", "version", KINDS[spec.kind].version, str(KINDS[spec.kind].version), cls),
        Leaf("seed", "seed", spec.seed, str(spec.seed), cls),
        Leaf("revision", "revision", revision, (revision or "unknown")[:12], cls),
    ]
    for name, declared in declarations(spec):
        path = declared.word if isinstance(declared, Clause) else name
        found += _Walk(parents, revision is not None).value(
            path, path, getattr(settled, name), declared.cls
        )
    return tuple(_as_published(leaf, spec) for leaf in found)


def _as_published(leaf: Leaf, spec: Spec) -> Leaf:
    """A value that nobody published is not the one that stands in for it; within an expression it is a null."""
    for path in spec.unpublished:
        is_row = isinstance(getattr(spec, path, None), RowExpr)
        if not is_row and (leaf.path == path or leaf.path.startswith(f"{path}.")):
            return replace(leaf, value="unpublished", shown="unpublished", default=False)
    return leaf


@dataclass(frozen=True, slots=True)
class _Walk:
    """``pinned``: local paths are left out, since the revision stands for what they lead to."""

    parents: Parents
    pinned: bool

    def value(self, key: str, path: str, value: object, cls: SettingClass) -> list[Leaf]:
        match value:
            case RowExpr():
                tree = self.tree(value.tree)
                whole = Leaf(key, path, tree, value.text, cls, _asked_stage(value.tree))
                return [whole, *_code(key, path, value, cls)]
            case TrainedModel():
                return [Leaf(key, path, self.stage(value.stage), value.stage, cls, value.stage)]
            case Hardware():
                return [Leaf(key, path, _machines(value), shown_hardware(value), cls)]
            case Expect(text=text):
                return [Leaf(key, path, text, text, cls)]
            case Amount() | Range():
                return [Leaf(key, path, _plain(value), shown(value), cls)]
            case tuple() if any(isinstance(item, RowExpr) for item in value):
                return self.expressions(key, path, value, cls)
            case RowSets(names=names):
                return self.parts(key, path, names, cls)
            case tuple() if path == "from":
                return self.parts(key, path, value, cls)
            case str() if path == "from":
                return [Leaf(key, path, self.stage(value), value, cls, value)]
            case dict():
                return [
                    leaf
                    for name, item in value.items()
                    for leaf in self.value(f"{key}.{name}", f"{path}.{name}", item, cls)
                ]
            case BaseModel():
                return self.fields(key, path, value, cls)
            case _:
                return [Leaf(key, path, _plain(value), shown(value), cls)]

    def expressions(
        self, key: str, path: str, items: tuple[RowExpr, ...], cls: SettingClass
    ) -> list[Leaf]:
        """A list of expressions is one value, and the code that they run."""
        whole = Leaf(
            key, path, [self.tree(e.tree) for e in items], ", ".join(e.text for e in items), cls
        )
        return [whole, *(leaf for e in items for leaf in _code(key, path, e, cls))]

    def stage(self, name: str) -> Canonical:
        return ["stage", self.parents[name]]

    def parts(
        self, key: str, path: str, parts: tuple[MixPart | str, ...], cls: SettingClass
    ) -> list[Leaf]:
        found: list[Leaf] = []
        for position, part in enumerate(parts):
            name, amount = (part.rows, part.amount) if isinstance(part, MixPart) else (part, All())
            value: Canonical = [self.stage(name), _plain(amount)]
            text = shown_amount(amount) if isinstance(part, MixPart) else name
            again = sum(1 for leaf in found if leaf.parent == name)
            shown_path = f"{path}.{name}#{again + 1}" if again else f"{path}.{name}"
            found.append(Leaf(f"{key}.{position}", shown_path, value, text, cls, name))
        return found

    def fields(self, key: str, path: str, value: BaseModel, cls: SettingClass) -> list[Leaf]:
        found: list[Leaf] = []
        for name, info in type(value).model_fields.items():
            item_cls = self.field_class(value, name, cls)
            item = getattr(value, name)
            if isinstance(value, Model) and name == "kind":
                continue
            if name == "kind":
                found.append(Leaf(f"{key}.kind", path, item, str(item), item_cls, branch=True))
            elif isinstance(value, Model) and name == "source":
                found += self.fields(f"{key}.source", path, item, item_cls)
            else:
                inner = self.value(f"{key}.{name}", f"{path}.{word_of(name, info)}", item, item_cls)
                found += (
                    [replace(leaf, default=True) for leaf in inner]
                    if item == info.default
                    else inner
                )
        return found

    def field_class(self, value: BaseModel, name: str, cls: SettingClass) -> SettingClass:
        if name == "path" and self.pinned and getattr(value, "kind", None) in LOCAL_PATHS:
            return "meta"
        return FIELD_CLASS.get((type(value).__name__, name), cls)

    def tree(self, node: ExprNode) -> Canonical:
        """The tree as nested lists; names of stages and models give way to what they stand for."""
        match node:
            case Lit(value=value):
                return ["lit", _plain(value)]
            case Col(name=name):
                return ["col", name]
            case Call():
                return self.call(node)
            case ListOf() | Unary() | Binary() | Between() | Index():
                return [node.op, *(self.tree(child) for child in children(node))]
            case _:
                assert_never(node)

    def call(self, node: Call) -> Canonical:
        version = FUNCTIONS[node.fn].version if node.fn in FUNCTIONS else 0
        named: Canonical = [
            [name, self.tree(value)] for name, value in sorted(node.named, key=lambda pair: pair[0])
        ]
        args: Canonical = [self.tree(arg) for arg in node.args]
        if node.verifier is not None:
            own = node.verifier
            return ["call", own.source.kind, own.source.entry, own.version, own.gives]
        stages: list[Canonical] = [self.stage(name) for name in node.stages]
        return ["call", node.fn, version, args, named, self.asked(node.model), *(stages or [None])]

    def asked(self, model: Model | TrainedModel | None) -> Canonical:
        match model:
            case None:
                return None
            case TrainedModel(stage=stage):
                return self.stage(stage)
            case Model():
                found = self.fields("model", "model", model, "rows")
                return sorted(
                    ([leaf.key, leaf.value] for leaf in found if leaf.cls == "rows"), key=str
                )
            case _:
                assert_never(model)


def _asked_stage(tree: ExprNode) -> str | None:
    """The first stage that an expression refers to."""
    return next((n.stages[0] for n in nodes(tree) if isinstance(n, Call) and n.stages), None)


def _code(key: str, path: str, expr: RowExpr, cls: SettingClass) -> list[Leaf]:
    """The code that an expression runs, so that a change of it is told from a change of the expression."""
    called = [node.verifier for node in nodes(expr.tree) if isinstance(node, Call)]
    return [
        Leaf(
            f"{key}.code.{own.source.entry}",
            f"{path}: {own.name}{CODE}",
            own.code,
            own.code[:12],
            cls,
        )
        for own in dict.fromkeys(called)
        if own is not None
    ]


def _machines(hardware: Hardware) -> Canonical:
    """Without the name; without a cluster as it was before there were any."""
    own = _plain(hardware.model_copy(update={"name": ""}))
    assert isinstance(own, list), "a model is a list of pairs"
    return [part for part in own if part != ["cluster", None]]


def _plain(value: object) -> Canonical:
    """A value as JSON has it: whole floats are integers, models lists of pairs, so that key order cannot matter."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return int(value) if value.is_integer() and abs(value) < 2**53 else value
        case tuple() | list():
            return [_plain(item) for item in value]
        case BaseModel():
            return [
                [name, _plain(getattr(value, name))] for name in sorted(type(value).model_fields)
            ]
        case _:
            raise AssertionError(
                f"a setting holds {type(value).__name__}, which has no canonical form"
            )
