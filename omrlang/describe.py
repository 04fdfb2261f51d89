"""Settings, functions and declarations become the Markdown of hovers, completions and the reference."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from omrlang.declared import Key, arguments
from omrlang.functions import Asks, Function
from omrlang.shown import shown
from omrlang.types import (
    Amount,
    Enough,
    Expect,
    Gpu,
    Hardware,
    Model,
    Prompt,
    Range,
    RowExpr,
    RowSets,
    SettingClass,
    TrainedModel,
)

CLASSES: dict[SettingClass, str] = {
    "rows": "changes rows or their text",
    "weights": "changes the trained model",
    "speed": "same result, other time or memory",
    "meta": "names, notes, assumptions",
}
ASKS: dict[Asks, str] = {
    "sql": "answered by DuckDB",
    "row": "answered row by row",
    "tokens": "asks a tokenizer",
    "response": "needs the response and its prompt's format",
    "stage": "looks at another stage's verdicts",
    "rows": "looks at the rows of other stages",
    "worker": "answered in a process that can be killed",
    "model": "asks a model",
    "code": "runs code that the recipe brings along",
}
_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    tuple[float, float]: "list of two numbers",
    tuple[str, ...]: "list of texts",
    Amount: "number with a unit",
    Enough: "`N of (EXPRESSION)`",
    Range: "range `lo .. hi`",
    Expect: "limits",
    Prompt: "prompt",
    Hardware: "hardware",
    Gpu: "gpu",
    Model: "model",
    TrainedModel: "stage that makes one",
    RowSets: "list of stages that give rows",
}


def setting_text(key: Key) -> str:
    """Type, unit, range, default, class and documentation of a setting."""
    lines = [f"**{key.name}** · {' · '.join(facts(key))}", key.setting.doc]
    if key.is_setting:
        lines.append(f"class `{key.setting.cls}`: {CLASSES[key.setting.cls]}")
    return "\n\n".join(line for line in lines if line)


def facts(key: Key) -> Iterator[str]:
    """What a line can say about a setting."""
    if takes := type_text(key):
        yield takes
    setting = key.setting
    units = setting.units or ((setting.unit,) if setting.unit else ())
    if units:
        yield " or ".join(f"`{unit}`" for unit in units)
    limits = (
        (setting.ge, "at least"),
        (setting.gt, "over"),
        (setting.le, "at most"),
        (setting.lt, "under"),
    )
    for limit, words in limits:
        if limit is not None:
            yield f"{words} {limit:g}"
    if setting.one_of:
        yield "exactly one of its group"
    yield "required" if key.required else f"default `{default_text(key)}`"


def default_text(key: Key) -> str:
    """A default as a recipe would write it."""
    value = key.default
    if isinstance(value, BaseModel) and "kind" in type(value).model_fields:
        given = ", ".join(
            f"{name} = {shown(getattr(value, name))}" for name in arguments(type(value))
        )
        return f"{value.model_dump()['kind']}({given})"
    if isinstance(value, BaseModel) and value == type(value).model_construct():
        return "none"
    return "none" if value == {} else shown(value)


def type_text(key: Key) -> str:
    """What a value is, in a few words."""
    if RowExpr in key.branches:
        return "an expression over the row" if not key.several else "expressions over the row"
    calls = [f"`{word}(…)`" for word in key.choices]
    if key.words or calls:
        other = [_WORDS[branch] for branch in key.branches if branch in _WORDS]
        shown = " | ".join([*other, *(f"`{word}`" for word in key.words), *calls])
        return f"a list of {shown}" if key.is_list else shown
    named = [_WORDS.get(branch, "") for branch in key.branches]
    return " or ".join(word for word in named if word)


def choice_text(word: str, model: type[BaseModel]) -> str:
    """A call that is one of a setting's choices."""
    doc = inspect.cleandoc(model.__doc__ or "").replace("``", "`")
    listed = [f"- `{key.name}`: {', '.join(facts(key))}" for key in arguments(model).values()]
    parts = (f"```omr\n{signature(word, model)}\n```", doc, "\n".join(listed))
    return "\n\n".join(part for part in parts if part)


def signature(word: str, model: type[BaseModel]) -> str:
    """``cosine(peak, warmup = 0 steps, floor = 0)``."""
    given = [
        f"{key.name}{'…' if key.several else ''}"
        if key.required
        else f"{key.name} = {default_text(key)}"
        for key in arguments(model).values()
    ]
    return f"{word}({', '.join(given)})"


def function_text(function: Function) -> str:
    """A function or verifier of row expressions."""
    return f"```omr\n{function_signature(function)}\n```\n\n{function.doc}\n\n{ASKS[function.asks]}"


def function_signature(function: Function) -> str:
    """
    >>> from omrlang.functions import FUNCTIONS
    >>> function_signature(FUNCTIONS["strip"]), function_signature(FUNCTIONS["format_ok"])
    ('strip(text, [text]) → text', 'format_ok → bool')
    """
    needed = len(function.args) - function.optional
    parts = [arg if i < needed else f"[{arg}]" for i, arg in enumerate(function.args)]
    parts += ["…"] if function.variadic else []
    subject = {"model": ["MODEL"], "stage": ["FILTER"]}.get(function.asks, [])
    parts = [*subject, *parts, *(f"{name} = {type_}" for name, type_ in function.named)]
    inside = f"({', '.join(parts)})" if parts else ""
    return f"{function.name}{inside} → {function.result}"
