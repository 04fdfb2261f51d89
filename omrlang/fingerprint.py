"""A stage's specification becomes settled leaves (setting, value, class), and those that matter become its fingerprint.

Alone knows which parts of a value decide the result. Text, names, key order, ``speed`` and ``meta`` settings do not;
what a stage refers to counts by that stage's fingerprint; derived amounts count, not the way they were written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, assert_never

from pydantic import BaseModel

from omrlang.functions import FUNCTIONS
from omrlang.schema import KINDS, Eval, Rl, Sft, Spec
from omrlang.types import (
    All,
    Amount,
    Between,
    Binary,
    Call,
    Clause,
    Col,
    Count,
    ExprNode,
    Hardware,
    Index,
    ListOf,
    Lit,
    LrSchedule,
    MixAmount,
    MixPart,
    Model,
    Prompt,
    Range,
    RowExpr,
    Rule,
    Setting,
    SettingClass,
    Share,
    Times,
    TrainedModel,
    Unary,
    UpTo,
)

Canonical: TypeAlias = bool | int | float | str | list["Canonical"] | None
Parents: TypeAlias = Mapping[str, str]

LOCAL_PATHS = ("folder", "parquet", "jsonl", "json", "csv")
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

ANSWER_MATCHES = Call(fn="answer_matches")
DEFAULT_SCORE = RowExpr(
    text="answer_matches",
    type="bool",
    tree=ANSWER_MATCHES,
    rules=(Rule(name="answer_matches", tree=ANSWER_MATCHES),),
)
"""What an ``eval`` without ``score`` counts as right."""


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
        path = self.path.replace(f".{self.parent}", f".{new}") if self.path.endswith(f".{self.parent}") else self.path
        shown = new if self.shown == self.parent else self.shown
        return replace(self, path=path, shown=shown, parent=new)


def fingerprint(spec: Spec, parents: Parents, revision: str | None) -> str:
    """32 hexadecimal digits that name the stage's artifact. ``parents`` maps each stage it names to its fingerprint.

    >>> from omrlang.schema import Source
    >>> from omrlang.types import Synthetic
    >>> place = Synthetic(name="shapes", n=3, seed=1)
    >>> one = fingerprint(Source(name="a", seed=7, place=place), {}, None)
    >>> one == fingerprint(Source(name="b", seed=7, place=place, rows=3), {}, None)
    True
    """
    matters = deciding_classes(spec)
    pairs = sorted((leaf.key, leaf.value) for leaf in leaves(spec, parents, revision) if leaf.cls in matters)
    text = json.dumps(pairs, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def deciding_classes(spec: Spec) -> frozenset[SettingClass]:
    """The classes of settings that move this stage's fingerprint."""
    return frozenset({"rows", "weights"}) if isinstance(spec, Sft | Rl) else frozenset({"rows"})


def leaves(spec: Spec, parents: Parents, revision: str | None) -> tuple[Leaf, ...]:
    """Every value of a stage: clauses, settings, seed, version and revision, whatever their class."""
    cls: SettingClass = "weights" if isinstance(spec, Sft | Rl) else "rows"
    settled = settle(spec)
    found = [
        Leaf("kind", "kind", spec.kind, spec.kind, cls),
        Leaf("version", "version", KINDS[spec.kind].version, str(KINDS[spec.kind].version), cls),
        Leaf("seed", "seed", spec.seed, str(spec.seed), cls),
        Leaf("revision", "revision", revision, (revision or "unknown")[:12], cls),
    ]
    for name, declared in declarations(spec):
        path = declared.word if isinstance(declared, Clause) else name
        found += _Walk(parents, revision is not None).value(path, path, getattr(settled, name), declared.cls)
    return tuple(found)


def declarations(spec: Spec) -> Iterator[tuple[str, Setting | Clause]]:
    """The stage's fields that a recipe can write, with how each was declared."""
    for name, info in type(spec).model_fields.items():
        for item in info.metadata:
            if isinstance(item, Setting | Clause):
                yield name, item


def num_devices(spec: Sft | Rl) -> int:
    """How many processes train: one a GPU, or ``processes`` on a machine without one."""
    if spec.hardware is None:
        return spec.processes
    return spec.hardware.count if spec.hardware.gpu is not None else max(spec.hardware.count, spec.processes)


def settled_amount(amount: Amount, devices: int) -> Amount:
    """``1 pack / gpu`` on 32 devices is 32 packs."""
    unit, per, _ = amount.unit.partition(" / ")
    return Amount(value=amount.value * devices, unit=unit) if per else amount


def settle(spec: Spec) -> Spec:
    """The stage with derived values in the place of what they were derived from, and defaults that hang on others."""
    match spec:
        case Sft():
            batch = settled_amount(spec.batch, num_devices(spec))
            return spec.model_copy(update={"batch": batch, "lr": _settled_lr(spec.lr, spec.steps)})
        case Rl():
            batch = settled_amount(spec.batch, num_devices(spec))
            minibatch = settled_amount(spec.minibatch, num_devices(spec)) if spec.minibatch else batch
            lr = _settled_lr(spec.lr, spec.steps)
            return spec.model_copy(update={"batch": batch, "minibatch": minibatch, "lr": lr})
        case Eval() if spec.score is None:
            return spec.model_copy(update={"score": DEFAULT_SCORE})
        case _:
            return spec


def _settled_lr(lr: LrSchedule, steps: int | None) -> LrSchedule:
    """A warm-up given as a fraction of a known number of steps is a number of steps, where it comes out whole."""
    if lr.warmup.value == 0:
        return lr.model_copy(update={"warmup": Amount(value=0, unit="steps")})
    if lr.warmup.unit != "fraction" or steps is None:
        return lr
    warmup = round(lr.warmup.value * steps, 9)
    if warmup != int(warmup):
        return lr
    return lr.model_copy(update={"warmup": Amount(value=warmup, unit="steps")})


# ---- what a stage refers to --------------------------------------------------------------------------------------


def references(spec: Spec) -> tuple[str, ...]:
    """Names of the stages that this one needs: rows first, then its model, then those in expressions; each once."""
    names: list[str] = []
    for _, declared, value in _values(spec):
        if isinstance(declared, Clause) and declared.word == "from":
            names += _rows_named(value)
    for _, _, value in _values(spec):
        if isinstance(value, TrainedModel):
            names.append(value.stage)
    for call in calls(spec):
        if call.stage is not None:
            names.append(call.stage)
        if isinstance(call.model, TrainedModel):
            names.append(call.model.stage)
    return tuple(dict.fromkeys(names))


def _values(spec: Spec) -> Iterator[tuple[str, Setting | Clause, Any]]:
    for name, declared in declarations(spec):
        yield name, declared, getattr(spec, name)


def _rows_named(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case tuple():
            return [item.rows if isinstance(item, MixPart) else str(item) for item in value]
        case _:
            return []


def expressions(spec: Spec) -> Iterator[RowExpr]:
    """Every row expression of a stage, that of its prompt among them."""
    for _, _, value in _values(spec):
        match value:
            case RowExpr():
                yield value
            case Prompt(user=RowExpr() as user):
                yield user
            case dict():
                yield from (item for item in value.values() if isinstance(item, RowExpr))
            case _:
                pass


def calls(spec: Spec) -> Iterator[Call]:
    """Every call in every row expression of a stage."""
    for expression in expressions(spec):
        for node in nodes(expression.tree):
            if isinstance(node, Call):
                yield node


def nodes(tree: ExprNode) -> Iterator[ExprNode]:
    """A tree's nodes, the root first."""
    yield tree
    for child in _children(tree):
        yield from nodes(child)


def _children(node: ExprNode) -> tuple[ExprNode, ...]:
    match node:
        case Lit() | Col():
            return ()
        case ListOf(items=items):
            return items
        case Unary(x=x):
            return (x,)
        case Binary(left=left, right=right):
            return (left, right)
        case Between(x=x, lo=lo, hi=hi):
            return (x, lo, hi)
        case Index(x=x, at=at):
            return (x, at)
        case Call(args=args, named=named):
            return (*args, *(value for _, value in named))
        case _:
            assert_never(node)


# ---- values to leaves --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Walk:
    """``pinned``: local paths are left out, since the revision stands for what they lead to."""

    parents: Parents
    pinned: bool

    def value(self, key: str, path: str, value: object, cls: SettingClass) -> list[Leaf]:
        match value:
            case RowExpr():
                return [Leaf(key, path, self.tree(value.tree), value.text, cls, _asked_stage(value.tree))]
            case TrainedModel():
                return [Leaf(key, path, self.stage(value.stage), value.stage, cls, value.stage)]
            case Hardware():
                return [Leaf(key, path, _plain(value), shown_hardware(value), cls)]
            case Amount() | Range():
                return [Leaf(key, path, _plain(value), shown(value), cls)]
            case tuple() if path == "from":
                return self.parts(key, path, value, cls)
            case str() if path == "from":
                return [Leaf(key, path, self.stage(value), value, cls, value)]
            case dict():
                return [leaf for name, item in value.items() for leaf in self.value(f"{key}.{name}", f"{path}.{name}", item, cls)]
            case BaseModel():
                return self.fields(key, path, value, cls)
            case _:
                return [Leaf(key, path, _plain(value), shown(value), cls)]

    def stage(self, name: str) -> Canonical:
        return ["stage", self.parents[name]]

    def parts(self, key: str, path: str, parts: tuple[MixPart | str, ...], cls: SettingClass) -> list[Leaf]:
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
                inner = self.value(f"{key}.{name}", f"{path}.{name}", item, item_cls)
                found += [replace(leaf, default=True) for leaf in inner] if item == info.default else inner
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
                return [node.op, *(self.tree(child) for child in _children(node))]
            case _:
                assert_never(node)

    def call(self, node: Call) -> Canonical:
        version = FUNCTIONS[node.fn].version if node.fn in FUNCTIONS else 0
        named: Canonical = [[name, self.tree(value)] for name, value in sorted(node.named, key=lambda pair: pair[0])]
        stage: Canonical = self.stage(node.stage) if node.stage else None
        return ["call", node.fn, version, [self.tree(arg) for arg in node.args], named, self.asked(node.model), stage]

    def asked(self, model: Model | TrainedModel | None) -> Canonical:
        match model:
            case None:
                return None
            case TrainedModel(stage=stage):
                return self.stage(stage)
            case Model():
                found = self.fields("model", "model", model, "rows")
                return sorted(([leaf.key, leaf.value] for leaf in found if leaf.cls == "rows"), key=str)
            case _:
                assert_never(model)


def _asked_stage(tree: ExprNode) -> str | None:
    """The first stage that an expression refers to."""
    return next((node.stage for node in nodes(tree) if isinstance(node, Call) and node.stage), None)


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
            return [[name, _plain(getattr(value, name))] for name in sorted(type(value).model_fields)]
        case _:
            raise AssertionError(f"a setting holds {type(value).__name__}, which has no canonical form")


# ---- values for people -------------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """A value as a recipe would write it, near enough to be recognised."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}"
        case float():
            return shown_number(value)
        case str():
            return json.dumps(value, ensure_ascii=False) if len(value) != len(value.strip()) or " " in value else value
        case tuple() | list():
            return f"[{', '.join(shown(item) for item in value)}]"
        case Amount(value=number, unit="fraction"):
            return f"{shown_number(number * 100)}%"
        case Amount(value=number, unit=unit):
            return f"{shown_number(number)} {unit}"
        case Range(lo=lo, hi=hi):
            return f"{shown_number(lo)} .. {shown_number(hi)}"
        case _:
            return str(value)


def shown_number(value: float) -> str:
    """``1000000.0`` is ``1_000_000``, ``5e-05`` is ``5e-5``."""
    if value.is_integer() and abs(value) < 1e15:
        return f"{int(value):_}"
    text = f"{value:.6g}"
    return text.replace("e-0", "e-").replace("e+0", "e+")


def shown_amount(amount: MixAmount) -> str:
    """An amount of a mix as a recipe writes it."""
    match amount:
        case All():
            return "all"
        case Count(n=n):
            return f"{n:_}"
        case Share(fraction=fraction):
            return f"{shown_number(fraction * 100)}%"
        case UpTo(n=n):
            return f"up_to({n:_})"
        case Times(k=k):
            return f"times({k})"
        case _:
            assert_never(amount)


def shown_hardware(hardware: Hardware) -> str:
    """``32 x a800_80gb``, or the number of processes on a machine without a GPU."""
    if hardware.gpu is None:
        return f"{hardware.count} processes"
    return f"{hardware.count} x {hardware.gpu.name}"
