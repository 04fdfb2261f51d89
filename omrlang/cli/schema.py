"""``omr schema [WHAT]``: every setting with its type, unit, bounds, default and class, as JSON Schema 2020-12."""

from __future__ import annotations

import argparse
import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("schema", help="print the settings as JSON Schema")
    parser.add_argument(
        "what",
        nargs="?",
        help="a stage kind, a thing such as `model`, `plan`, `diff`, `study` (of several recipes), or `findings` (of omr check --format json); "
        "default all kinds and things",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one schema."""
    from omrlang.diagnostics import nearest

    known = declared() | written()
    if args.what is not None and args.what not in known:
        near = nearest(args.what, known)
        hint = f"; `{near}` is one" if near else f"; there are {', '.join(known)}"
        print(f"omr: nothing called `{args.what}` has a schema{hint}", file=sys.stderr)
        return 64
    schema = recipe_schema() if args.what is None else one(known[args.what])
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0


def declared() -> dict[str, type[BaseModel]]:
    """What a recipe declares, by its word."""
    from omrlang.check import Limits
    from omrlang.check.things import MODELS
    from omrlang.schema import KINDS

    return {**KINDS, **MODELS, "budget": Limits}


def written() -> dict[str, type[BaseModel]]:
    """What commands write as JSON."""
    from omrlang.diff.report import Diff, Study
    from omrlang.render.data import Findings

    return {"plan": planned(), "diff": Diff, "study": Study, "findings": Findings}


@cache
def planned() -> type[BaseModel]:
    """What ``omr plan --json`` prints: a plan, an array of them for a recipe with variants, or why there is none.

    Made only here: pydantic builds the validators of a union at once, and a plan must start without them."""
    from pydantic import RootModel

    from omrlang.plan import Plan, PlanFailure

    class Planned(RootModel[Plan | PlanFailure | tuple[Plan, ...]]):
        """What ``omr plan --json`` prints: a plan, an array of them for a recipe with variants, or why there is none."""

    return Planned


def one(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of one model, with those of its parts."""
    return {"$schema": DIALECT, **model.model_json_schema(mode=_mode(model))}


def _mode(model: type[BaseModel]) -> Literal["validation", "serialization"]:
    """Of what commands write, as it is written: dollars are text there."""
    return "serialization" if model in written().values() else "validation"


def recipe_schema() -> dict[str, Any]:
    """One schema of everything that a recipe declares: each is a definition that the others refer to."""
    from pydantic.json_schema import models_json_schema

    models = declared()
    refs, shared = models_json_schema([(model, "validation") for model in models.values()])
    kinds = {word: refs[model, "validation"] for word, model in models.items()}
    return {
        "$schema": DIALECT,
        "title": "What an omr recipe declares, every value filled in",
        "description": "x-key is what a setting is called in a recipe where that is not the property's name; x-class says "
        "what a changed value redoes; x-unit is the unit of a bare number.",
        "anyOf": list(kinds.values()),
        "x-kinds": kinds,
        **shared,
    }
