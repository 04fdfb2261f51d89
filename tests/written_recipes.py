"""Recipes as text, drawn from the schema: for laws that hold of any recipe, whatever settings it has.

A recipe is drawn as statements with names of their own (`@clean`) and settings apart, so that a law can rename, reorder
and change them; `written` turns it into text. Values come from the declared types, so a new setting is drawn at once.
"""

from __future__ import annotations

import builtins
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omrlang import types as t
from omrlang.schema import KINDS
from omrlang.types import Setting

HEAD = '''omr 1

use std.formats
use std.gpus
use std.models

seed = 7

prompt @own = formats.think_answer {
  system = """Think.

    Then # answer."""
}

'''
_NAME = re.compile(r"@(\w+)")


@dataclass(frozen=True)
class Statement:
    """``KIND @NAME clauses { key value … }``; a setting's text has its sign (``= 3`` or ``{ every = 3 }``)."""

    kind: str
    name: str
    clauses: str
    settings: tuple[tuple[str, str], ...]

    def setting(self, key: str, text: str) -> Statement:
        """With one setting as given, and without the other of a pair."""
        other = {"steps": "epochs", "epochs": "steps"}.get(key)
        kept = tuple(pair for pair in self.settings if pair[0] not in (key, other))
        return replace(self, settings=(*kept, (key, text)))


def written(statements: tuple[Statement, ...], names: Mapping[str, str] = {}) -> str:
    """The recipe as text, its names replaced."""
    parts = [HEAD]
    for statement in statements:
        body = "".join(f"  {key} {text}\n" for key, text in statement.settings)
        parts.append(f"{statement.kind} @{statement.name} {statement.clauses} {{\n{body}}}\n\n")
    return _NAME.sub(lambda found: names.get(found[1], found[1]), "".join(parts))


# ---- statements --------------------------------------------------------------------------------


@st.composite
def recipes(draw: st.DrawFn) -> tuple[Statement, ...]:
    """A pipeline with a few of everything; most of them check, some hold numbers that do not go together."""
    teacher = draw(st.sampled_from(["models.qwen2_5_vl_7b", "models.qwen2_5_vl_3b"]))
    shapes = [
        ("source", "raw", 'from jsonl("raw.jsonl")'),
        ("source", "more", "from synthetic(\"shapes\", n = 30, seed = 1)"),
        ("mix", "asked", "from [@raw: 25%, @more: 75%]"),
        ("sample", "traces", f"from @asked with {teacher}"),
        ("filter", "clean", "from @traces"),
        ("sft", "start", "from @clean with models.qwen2_5_vl_7b"),
        ("rl", "better", "from @asked with @start"),
        ("eval", "exam", "from [@more, @raw] with @better"),
    ]  # fmt: skip
    wanted = draw(st.integers(3, len(shapes)))
    return tuple(
        Statement(kind, name, clauses, draw(_settings(kind)))
        for kind, name, clauses in shapes[:wanted]
    )


APART = {("mix", "total")}
"""Settings that are right only beside another; drawn by hand."""


@st.composite
def _settings(draw: st.DrawFn, kind: str) -> tuple[tuple[str, str], ...]:
    found = []
    for key, info, setting in declared(kind):
        if setting.one_of or (kind, key) in APART:
            continue
        if info.is_required() or key == "keep" or draw(st.integers(0, 3)) == 0:
            found.append((key, draw(setting_text(kind, key))))
    if ("adapter", "= none") not in found and "adapter" in dict(found):
        found = [
            (key, text) for key, text in found if key != "freeze"
        ]  # E316: says nothing beside it
    if kind in ("sft", "rl"):
        found.append(draw(st.sampled_from([("steps", "= 30"), ("epochs", "= 2")])))
    if kind == "mix":
        found.append(("total", "= 40"))
    return tuple(draw(st.permutations(found)))


def declared(kind: str) -> list[tuple[str, FieldInfo, Setting]]:
    """The settings of a stage kind by key."""
    found = []
    for name, info in KINDS[kind].model_fields.items():
        for item in info.metadata:
            if isinstance(item, Setting):
                found.append((item.key or name, info, item))
    return found


def setting_text(kind: str, key: str) -> st.SearchStrategy[str]:
    """A value of a setting with its sign."""
    if key in GIVEN:
        return st.sampled_from(GIVEN[key]).map(_signed)
    info, setting = next((info, s) for name, info, s in declared(kind) if name == key)
    return _value(info.annotation, setting).map(_signed)


def _signed(text: str) -> str:
    return text if text.startswith("{") else f"= {text}"


# ---- values ------------------------------------------------------------------------------------

GIVEN: dict[str, list[str]] = {
    "keep": ["len(question) > 3", "format_ok and answer_matches", "len(response) in 1 .. 900 or not format_ok"],
    "until": ["none", "2 of (format_ok and answer_matches)"],
    "where": ["len(question) <= 50", "question is not null and len(question) > 2"],
    "reward": ["answer_matches", "0.9 * answer_matches + 0.1 * format_score"],
    "score": ["answer_matches", "0.5 * answer_matches"],
    "prompt": ["@own", "formats.think_answer", "formats.think_answer_short"],
    "columns": ["{ question = question, answer = answer }", '{ question = question + "?", answer = text(answer), extra.level = text(len(question)) }'],
    "unique": ["near(question, at = 0.9)", "near(question, images, at = 0.95, across = mean)"],
    "aggregate": ["mean", "majority"],
    "engine": ["none", "transformers(batch = 2)", "vllm(max_num_seqs = 8)"],
    "expect": ["rows >= 1", "none"],
}  # fmt: skip
"""Values of settings whose type says too little: row expressions, names, servers."""


def _value(want: Any, setting: Setting) -> st.SearchStrategy[str]:
    """A text that the checker takes for this type."""
    return st.one_of([_branch(branch, setting) for branch in _branches(want)])


def _branch(want: Any, setting: Setting) -> st.SearchStrategy[str]:
    match get_origin(want) or want:
        case types.NoneType:
            return st.just("none")
        case builtins.bool:
            return st.sampled_from(["true", "false"])
        case builtins.str:
            return st.sampled_from(['"one"', '"two"'])
        case builtins.int | builtins.float:
            return _number(want, setting)
        case typing.Literal:
            return st.sampled_from(get_args(want))
        case builtins.tuple if words := [w for arg in get_args(want) for w in get_args(arg)]:
            return st.sampled_from([f"[{words[0]}]", f"[{words[1]}, {words[0]}]"])
        case builtins.tuple:
            texts = (
                ['["one", "two"]', '["three"]']
                if str in get_args(want)
                else ["[0.1, 0.2]", "[3e-4, 4e-4]"]
            )
            return st.sampled_from(texts)
        case t.RowExpr:
            return st.sampled_from(["len(question)", "len(answer) + 1"])
        case t.RowSets:
            return st.sampled_from(["[@more]", "[@raw, @more]"])
        case t.Amount:
            return st.sampled_from(_amounts(setting))
        case t.Range:
            low, high = ("20%", "40%") if setting.le == 1 else ("20", "4_000")
            return st.sampled_from([high, low, f"{low} .. {high}"])
        case _:
            return _fields(want)


def _number(want: type, setting: Setting) -> st.SearchStrategy[str]:
    """Numbers within the declared range."""
    numbers = [1, 2, 3, 30, 4_000] if want is int else [0.25, 0.5, 1, 3]
    least, most = setting.ge or 0, setting.le if setting.le is not None else 4_000
    over, under = setting.gt or -1, setting.lt if setting.lt is not None else 5_000
    fitting = [n for n in numbers if least <= n <= most and over < n < under]
    return st.sampled_from([f"{n:_}" for n in fitting])


def _amounts(setting: Setting) -> list[str]:
    """In each unit, but for what hangs on the machine, which is of another class."""
    units = [unit for unit in setting.units if "/" not in unit]
    return [f"{n}%" if unit == "fraction" else f"{n} {unit}" for unit in units for n in (2, 30)]


def _fields(model: type[BaseModel]) -> st.SearchStrategy[str]:
    """A call where the type has a word of its own, else braces."""
    parts: list[st.SearchStrategy[str | None]] = []
    for name, info in model.model_fields.items():
        if name != "kind":
            found = [item for item in info.metadata if isinstance(item, Setting)]
            text = _value(info.annotation, found[0] if found else Setting())
            named = text.map(f"{t.word_of(name, info)} = {{}}".format)
            parts.append(named if info.is_required() else st.one_of(st.none(), named))
    inside = st.tuples(*parts).map(lambda texts: ", ".join(filter(None, texts)))
    if "kind" not in model.model_fields:
        return inside.map("{{ {} }}".format)
    return inside.map(f"{model.model_fields['kind'].default}({{}})".format)


def _branches(want: Any) -> list[Any]:
    """The members of a union, without what annotates them."""
    while get_origin(want) is Annotated:
        want = get_args(want)[0]
    if isinstance(want, typing.ForwardRef):
        want = getattr(t, want.__forward_arg__)
    if get_origin(want) in (typing.Union, types.UnionType):
        return [branch for part in get_args(want) for branch in _branches(part)]
    return [want]
