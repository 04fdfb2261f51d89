"""``omr schema [KIND]``: every setting with its type, unit, default and class, as JSON Schema."""

from __future__ import annotations

import argparse
import json


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("schema", help="print the settings as JSON Schema")
    parser.add_argument("kind", nargs="?", help="one stage kind, or `plan`; default all kinds")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the schema of one kind, of the plan, or of all kinds by name."""
    import sys

    from omrlang.diagnostics import nearest
    from omrlang.schema import KINDS

    if args.kind == "plan":
        from omrlang.plan import Plan

        print(json.dumps(Plan.model_json_schema(), indent=2))
        return 0
    if args.kind is not None and args.kind not in KINDS:
        near = nearest(args.kind, KINDS)
        hint = f"; `{near}` is one" if near else f"; there are {', '.join(KINDS)}"
        print(f"omr: `{args.kind}` is no kind{hint}", file=sys.stderr)
        return 64
    schemas = {kind: _schema(kind) for kind in KINDS}
    print(json.dumps(schemas[args.kind] if args.kind else schemas, indent=2))
    return 0


def _schema(kind: str) -> dict[str, object]:
    """pydantic's schema with each setting's own facts added: class, unit, documentation."""
    from omrlang.schema import KINDS
    from omrlang.types import Clause, Setting

    model = KINDS[kind]
    schema: dict[str, object] = model.model_json_schema()
    properties = schema["properties"]
    assert isinstance(properties, dict), "a model has properties"
    for name, info in model.model_fields.items():
        for item in info.metadata:
            if isinstance(item, Setting):
                facts = {"description": item.doc, "x-class": item.cls, "x-unit": item.unit}
                properties[name] |= {key: value for key, value in facts.items() if value}
            if isinstance(item, Clause):
                properties[name] |= {
                    "description": item.doc,
                    "x-clause": item.word,
                    "x-class": item.cls,
                }
    return schema
