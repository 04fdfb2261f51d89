"""The schema becomes the pages of ``docs/reference``: ``python -m omrlang.manual`` writes them, a test compares them.

Everything on them is read from the declarations; to change a page, change the declaration.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from omrlang.cli.exits import EXIT_CODES, PRECEDENCE
from omrlang.declared import Key, Keys, arguments, clauses, model_of, settings
from omrlang.describe import ASKS, CLASSES, default_text, facts, function_signature, signature
from omrlang.diagnostics import CODES
from omrlang.functions import COLUMNS, FUNCTIONS, Function
from omrlang.schema import KINDS
from omrlang.scope import THINGS
from omrlang.types import COUNTED_BY, DENOMINATORS, METRIC_DOCS, UNITS, Metric
from omrlang.words import CLAUSES, INSTEAD, STATEMENTS

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by `python -m omrlang.manual` from the schema. -->\n"
COMMON = ("assume", "expect")
"""Settings that every stage has; they stand last."""


def pages() -> dict[str, str]:
    """Every page by its file name."""
    made = {f"{kind}.md": _kind_page(kind) for kind in KINDS}
    made |= {
        "README.md": _index(),
        "things.md": _things_page(),
        "functions.md": _functions_page(),
        "units.md": _units_page(),
        "exit-codes.md": _exit_codes_page(),
        "diagnostics.md": _diagnostics_page(),
    }
    return {name: f"{MADE}\n{text.rstrip()}\n" for name, text in made.items()}


def main(arguments: list[str]) -> int:
    """Write all pages into a folder, ``docs/reference`` by default."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"{len(pages())} pages in {folder}")
    return 0


# ---- kinds and things --------------------------------------------------------------------------


def _kind_page(kind: str) -> str:
    own = settings(kind)
    given = {name: own[name] for name in sorted(own, key=COMMON.__contains__)}
    said = clauses(kind)
    parts = [
        f"# `{kind}`",
        _sentence(f"omrlang.schema.{kind}"),
        "## Clauses",
        _table(
            ("clause", "class", "meaning"),
            (_clause_row(said[word]) for word in CLAUSES if word in said),
        ),
        *_clause_choices(said),
        "## Settings",
        _settings_table(given),
        *_inside(given, 3),
    ]
    return "\n\n".join(parts)


def _sentence(module: str) -> str:
    """What a schema module says of itself in its first line."""
    first = (import_module(module).__doc__ or "").strip().splitlines()[0]
    return _plain(first)


def _clause_choices(said: Keys) -> Iterator[str]:
    """What a clause takes that is a call: a source's places."""
    for word, key in said.items():
        if key.choices:
            yield f"## `{word} …`"
            yield from _choices(key.choices, 3)


def _clause_row(key: Key) -> tuple[str, ...]:
    needed = "" if key.required else " (may be left out)"
    return f"`{key.name}`{needed}", key.setting.cls, key.setting.doc


def _things_page() -> str:
    parts = [
        "# Things",
        "What stages name. `THING NAME { … }` is new, `THING NAME = OTHER { … }` derives from something that exists. "
        "The class of a thing's setting is that of the clause or setting which names the thing, or less: "
        "where a model is served, its shape and its licence change no result.",
    ]
    for thing in (*THINGS, "budget"):
        given = settings(thing)
        parts += [f"## `{thing}`", _doc(model_of(thing)), _arguments_table(given)]
        parts += _source_choices(thing)
        parts += _inside(given, 3)
    return "\n\n".join(part for part in parts if part)


def _source_choices(thing: str) -> Iterator[str]:
    """What stands after the `=` of a new model or verifier."""
    model = model_of(thing)
    if model is not None and "source" in model.model_fields:
        yield f"### `{thing} NAME = …`"
        yield from _choices(arguments(model)["source"].choices, 4)


def _doc(model: type[BaseModel] | None) -> str:
    return _plain(inspect.cleandoc(model.__doc__ or "")) if model is not None else ""


def _settings_table(keys: Keys) -> str:
    return _table(
        ("setting", "takes", "default", "class", "meaning"), map(_setting_row, keys.values())
    )


def _setting_row(key: Key) -> tuple[str, ...]:
    *takes, _ = facts(key)
    default = "required" if key.required else f"`{default_text(key)}`"
    inside = "group, see below" if not takes and key.inside else ""
    return f"`{key.name}`", ", ".join(takes) or inside, default, key.setting.cls, key.setting.doc


def _inside(keys: Mapping[str, Key], level: int) -> Iterator[str]:
    """For each setting with choices or with settings of its own, what those take."""
    for key in keys.values():
        if key.choices:
            yield f"{'#' * level} `{key.name} = …`"
            yield from _choices(key.choices, level + 1)
        elif key.inside:
            yield f"{'#' * level} `{key.name} {{ … }}`"
            yield _arguments_table(key.inside)


def _choices(choices: Mapping[str, type[BaseModel]], level: int) -> Iterator[str]:
    for word, model in choices.items():
        taken = arguments(model)
        yield f"{'#' * level} `{signature(word, model)}`"
        if doc := _doc(model):
            yield doc
        if taken:
            yield _arguments_table(taken)
        yield from _inside(taken, level + 1)


def _arguments_table(keys: Keys) -> str:
    """The class of an argument is that of the setting that holds it."""
    rows = (
        (name, takes, default, doc)
        for name, takes, default, _, doc in map(_setting_row, keys.values())
    )
    return _table(("name", "takes", "default", "meaning"), rows)


# ---- the rest ----------------------------------------------------------------------------------


def _index() -> str:
    pages_of = [(f"[`{kind}`]({kind}.md)", _sentence(f"omrlang.schema.{kind}")) for kind in KINDS]
    return "\n\n".join(
        [
            "# Reference",
            "Made from the schema that the checker, the editor and the fingerprints read. "
            "`omr schema` prints the same as JSON Schema.",
            "## Stages",
            _table(("kind", "what it is"), pages_of),
            "[Things](things.md) that stages name: "
            + ", ".join(f"[`{thing}`](things.md#{thing})" for thing in THINGS)
            + ". [Functions and verifiers](functions.md) of row expressions. [Units](units.md). "
            "[Exit codes](exit-codes.md). [Diagnostics](diagnostics.md).",
            "## Other statements",
            _table(("statement", "example"), ((f"`{k}`", f"`{v}`") for k, v in STATEMENTS.items())),
            "## Instead of a value",
            _table(("word", "meaning"), ((f"`{k}`", v) for k, v in INSTEAD.items())),
            "## Classes",
            "Each setting has a class: it decides what runs again when the value changes, and what a diff calls a factor.",
            _table(("class", "a changed value"), ((f"`{k}`", v) for k, v in CLASSES.items())),
        ]
    )


def _functions_page() -> str:
    is_verifier = {name for name, function in FUNCTIONS.items() if not function.args}
    plain = [function for name, function in FUNCTIONS.items() if name not in is_verifier]
    verifiers = [function for name, function in FUNCTIONS.items() if name in is_verifier]
    return "\n\n".join(
        [
            "# Row expressions",
            "`keep`, `reward`, `score`, `where`, `order` and the maps of columns and prompts are expressions over a row.",
            "## Functions",
            _table(("function", "meaning", "cost"), map(_function_row, plain)),
            "## Verifiers",
            "Each leaves its verdict on the row; `and` and `or` ask the second side only where it matters.",
            _table(("verifier", "meaning", "cost"), map(_function_row, verifiers)),
            "## Columns",
            "`extra.NAME` is any other column that a source maps, kept as text: `number(extra.NAME)` reads it as a number.",
            _table(("column", "type"), ((f"`{name}`", kind) for name, kind in COLUMNS.items())),
            "## Numbers of a stage",
            "`expect` sets limits on them: `expect = rows in 1_000 .. 1_200 and kept > 40%`.",
            _table(("number", "meaning", "of"), map(_metric_row, METRIC_DOCS)),
        ]
    )


def _function_row(function: Function) -> tuple[str, ...]:
    return f"`{function_signature(function)}`", _plain(function.doc), ASKS[function.asks]


def _metric_row(metric: Metric) -> tuple[str, ...]:
    kinds = ", ".join(f"`{kind}`" for kind in COUNTED_BY.get(metric, ()))
    return f"`{metric}`", METRIC_DOCS[metric], kinds or "any stage"


def _units_page() -> str:
    rows = (
        (f"`{word}`", "" if unit.factor == 1 else f"{unit.factor:,.15g} {unit.base}")
        for word, unit in UNITS.items()
    )
    below = ", ".join(f"`{word}`" for word in DENOMINATORS)
    return "\n\n".join(
        [
            "# Units",
            "A unit stands after a space: `80 GiB`, `4_300 steps`. A bare number is right where the place has one unit. "
            "`%` and the suffixes `k M B T Ki Mi Gi` touch the digits.",
            _table(("unit", "is"), rows),
            f"After a `/` may stand {below}, such as `$1.60 / gpu_hour` or `1 pack / gpu`.",
        ]
    )


def _exit_codes_page() -> str:
    order = ", ".join(map(str, PRECEDENCE))
    return "\n\n".join(
        [
            "# Exit codes",
            _table(("code", "meaning"), ((str(code), text) for code, text in EXIT_CODES.items())),
            f"Of several the first in this order counts: {order}. JSON output repeats the code with its reason.",
        ]
    )


def _diagnostics_page() -> str:
    rows = ((f"[{code.code}](../errors/{code.page}.md)", code.summary) for code in CODES.values())
    return "\n\n".join(
        [
            "# Diagnostics",
            "`E` is an error, `W` a warning; `omr explain CODE` prints a page. `--deny W…` makes a warning an error, "
            '`allow W… because "…"` in the recipe silences it.',
            "`omr check --format` writes them as text (`full`, `concise`), `json` (its schema: `omr schema findings`), "
            "`sarif` (2.1.0) or `github` workflow commands. `omr fix` mends what only one thing can be meant by.",
            _table(("code", "meaning"), rows),
        ]
    )


# ---- Markdown ----------------------------------------------------------------------------------


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
