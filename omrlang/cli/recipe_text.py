"""A checked recipe becomes its values, each with the layer that set it and where; and both become text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from omrlang.hir import Provenance, Recipe, Stage, Thing
from omrlang.references import declarations
from omrlang.shown import shown, shown_amount, shown_hardware
from omrlang.types import (
    Amount,
    Clause,
    Expect,
    Gpu,
    Hardware,
    MixPart,
    Model,
    Prompt,
    Range,
    RowExpr,
    RowSets,
    Setting,
    TrainedModel,
    Verifier,
    word_of,
)

MAX_VALUE = 60
CLAUSES = ("from", "with", "on")
_UNSET = Provenance("default", None)


@dataclass(frozen=True, slots=True)
class Value:
    """``path`` as ``--set`` takes it below ``owner``; ``origin`` is the layer that set it, with the place."""

    path: str
    text: str
    origin: Provenance

    @property
    def place(self) -> str:
        """``x8.omr:4``; empty for a default."""
        span = self.origin.span
        return f"{span.file.path}:{span.file.position(span.start)[0]}" if span else ""


@dataclass(frozen=True, slots=True)
class Section:
    """A stage or thing with all its values."""

    kind: str
    name: str
    values: tuple[Value, ...]


# ---- values ------------------------------------------------------------------------------------


def sections(recipe: Recipe) -> Iterator[Section]:
    """The recipe's own values, what it declares or names, its stages."""
    yield Section("recipe", str(recipe.path), tuple(_own(recipe)))
    for thing in recipe.things:
        yield Section(thing.kind, thing.value.name, tuple(_of_thing(thing)))
    for stage in recipe.stages:
        yield Section(stage_kind(stage), stage.spec.name, tuple(_of_stage(stage)))


def facts(recipe: Recipe) -> Iterator[dict[str, str | None]]:
    """Every value: what it belongs to, its path, its text, who set it and where."""
    for section in sections(recipe):
        for value in section.values:
            yield {
                "kind": section.kind,
                "name": section.name,
                "path": value.path,
                "value": value.text,
                "layer": value.origin.layer,
                "place": value.place or None,
            }


def stage_kind(stage: Stage) -> str:
    """A benchmark is a source that is not trained on."""
    return "benchmark" if getattr(stage.spec, "benchmark", False) else stage.spec.kind


def _own(recipe: Recipe) -> Iterator[Value]:
    yield Value("seed", str(recipe.seed), recipe.settings.get("seed", _UNSET))
    for key, origin in recipe.settings.items():
        name = key.removeprefix("budget.")
        if name != key and recipe.budget is not None:
            yield Value(key, f"${getattr(recipe.budget, f'{name}_usd'):,g}", origin)


def _of_stage(stage: Stage) -> Iterator[Value]:
    for name, declared in sorted(declarations(stage.spec), key=_rank):
        path = declared.word if isinstance(declared, Clause) else declared.key or name
        value = getattr(stage.spec, name)
        for inner, text, is_default in _walk(path, value):
            if inner in stage.spec.unpublished:
                text = "unpublished"
            yield Value(inner, text, _origin(stage.settings, inner, is_default=is_default))


def _rank(declaration: tuple[str, Setting | Clause]) -> int:
    """Clauses first, in the order of a sentence; what every kind has stands last."""
    name, declared = declaration
    if isinstance(declared, Clause):
        return CLAUSES.index(declared.word)
    return 4 if name in ("assume", "expect") else 3


def _of_thing(thing: Thing) -> Iterator[Value]:
    for name, info in type(thing.value).model_fields.items():
        if name in ("kind", "name"):
            continue
        path = word_of(name, info)
        value = getattr(thing.value, name)
        for inner, text, is_default in _walk(path, value):
            unset = is_default or (value == info.default and not info.is_required())
            yield Value(inner, text, _origin(thing.settings, inner, is_default=unset))


def _origin(settings: Mapping[str, Provenance], path: str, *, is_default: bool) -> Provenance:
    """Who set the value itself; else, unless it is a default, who set what it is a part of."""
    if path in settings:
        return settings[path]
    if is_default:
        return _UNSET
    while path:
        path = path.rpartition(".")[0]
        if path in settings:
            return settings[path]
    return _UNSET


def _walk(path: str, value: object, *, is_default: bool = False) -> Iterator[tuple[str, str, bool]]:
    """The smallest values within one, with their text, and whether they are what an argument is by itself."""
    match value:
        case dict() if value:
            for name, item in value.items():
                yield from _walk(f"{path}.{name}", item)
        case Gpu() | Model() | Prompt() | Verifier() | TrainedModel() | Hardware():
            yield path, _name(value), is_default
        case RowExpr() | Expect():
            yield path, value.text, is_default
        case Amount() | Range():
            yield path, shown(value), is_default
        case RowSets(names=names):
            yield path, _plain(names), is_default
        case BaseModel():
            yield from _parts(path, value, is_default)
        case _:
            yield path, _plain(value), is_default


def _parts(path: str, value: BaseModel, is_default: bool) -> Iterator[tuple[str, str, bool]]:
    fields = type(value).model_fields
    if "kind" in fields:
        yield path, str(getattr(value, "kind")), is_default  # noqa: B009 - a choice's word
    for name, info in fields.items():
        if name != "kind":
            item = getattr(value, name)
            unset = not info.is_required() and item == info.default
            yield from _walk(f"{path}.{word_of(name, info)}", item, is_default=unset)


def _name(value: Any) -> str:
    match value:
        case TrainedModel(stage=stage):
            return stage
        case Hardware():
            return shown_hardware(value)
        case _:
            return str(value.name)


def _plain(value: object) -> str:
    match value:
        case {}:
            return "none"
        case tuple():
            return f"[{', '.join(map(_part, value))}]"
        case _:
            return shown(value)


def _part(value: object) -> str:
    if isinstance(value, MixPart):
        return f"{value.rows}: {shown_amount(value.amount)}"
    return shown(value)


# ---- text --------------------------------------------------------------------------------------


def resolved_text(recipe: Recipe) -> str:
    """Every value with its layer and place, one a line, below what it belongs to."""
    found = list(sections(recipe))
    values = [value for section in found for value in section.values]
    widths = [
        max((len(value.path) for value in values), default=0),
        min(MAX_VALUE, max((len(_short(value.text)) for value in values), default=0)),
    ]
    return "\n\n".join(_section_text(section, widths) for section in found)


def _section_text(section: Section, widths: list[int]) -> str:
    lines = [f"{section.kind} {section.name}"]
    for value in section.values:
        text = f"  {value.path:<{widths[0]}}  {_short(value.text):<{widths[1]}}"
        lines.append(f"{text}  {value.origin.layer:<7}  {value.place}".rstrip())
    return "\n".join(lines)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_VALUE else f"{line[: MAX_VALUE - 1]}…"


def tree_text(recipe: Recipe) -> str:
    """The stages in the order in which they run, each with its clauses and, below, what was set on it."""
    variant = f"[{recipe.variant}]" if recipe.variant else ""
    head = [f"{recipe.path}{variant} · seed {recipe.seed}"]
    if recipe.because:
        head.append(f"because {recipe.because}")
    return "\n".join([*head, *(line for stage in recipe.stages for line in _stage_lines(stage))])


def _stage_lines(stage: Stage) -> Iterator[str]:
    given = _given(stage)
    clauses = [f"{word} {given.pop(word)}" for word in CLAUSES if word in given]
    yield f"\n{stage_kind(stage)} {' '.join([stage.spec.name, *clauses])}"
    for key, text in given.items():
        yield f"  {key} = {_short(text)}"


def _given(stage: Stage) -> dict[str, str]:
    """What somebody set, by its first word; a choice or group with the parts that were given."""
    parts: dict[str, list[Value]] = {}
    for value in _of_stage(stage):
        if value.place:
            parts.setdefault(value.path.partition(".")[0], []).append(value)
    return {key: _joined(key, values) for key, values in parts.items()}


def _joined(key: str, values: list[Value]) -> str:
    inside = ", ".join(
        f"{value.path.removeprefix(f'{key}.')} = {value.text}"
        for value in values
        if value.path != key
    )
    whole = next((value.text for value in values if value.path == key), None)
    if whole is None:
        return f"{{ {inside} }}"
    return f"{whole}({inside})" if inside else whole
