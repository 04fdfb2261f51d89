"""``omr check FILE…``: what is wrong with a recipe, or what it holds."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang import __version__
from omrlang.cli.arguments import add_deny, add_set

if TYPE_CHECKING:
    from omrlang.diagnostics import Diagnostic
    from omrlang.hir import Recipe

FORMATS = ("full", "concise", "json", "sarif", "github")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("check", help="find what is wrong with a recipe")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a recipe")
    add_set(parser)
    add_deny(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="full",
        help="how findings are written: full (default), concise (one line each), json, sarif (2.1.0), "
        "github (workflow commands)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 if every file is right, 1 if one is not."""
    from omrlang.compiler import load_all

    checked = [(path, *load_all(path, args.set, deny=args.deny)) for path in args.files]
    found = [item for _, _, diagnostics in checked for item in diagnostics]
    if args.format in ("json", "sarif"):
        print(_document(found, args.format))
    else:
        for path, recipes, diagnostics in checked:
            _print(diagnostics, args.format)
            _print_verdict(path, recipes, diagnostics)
    return int(any(item.severity == "error" for item in found))


def _document(found: Sequence[Diagnostic], form: str) -> str:
    """Everything that was found in one JSON text."""
    if form == "json":
        from omrlang.render.data import findings

        return findings(found, __version__).model_dump_json(indent=2)
    from omrlang.render.sarif import sarif

    return json.dumps(sarif(found, __version__), indent=2, ensure_ascii=False)


def _print(diagnostics: Sequence[Diagnostic], form: str) -> None:
    """Text goes to standard error; workflow commands to standard output, where a runner reads them."""
    from omrlang.render import concise, render

    if form == "github":
        from omrlang.render.github import github

        print("".join(f"{github(item)}\n" for item in diagnostics), end="")
    elif diagnostics:
        text = render(diagnostics) if form == "full" else "\n".join(map(concise, diagnostics))
        print(text, file=sys.stderr)


def _print_verdict(
    path: Path, recipes: Sequence[Recipe], diagnostics: Sequence[Diagnostic]
) -> None:
    from omrlang.diagnostics import MAX_ERRORS

    errors = sum(item.severity == "error" for item in diagnostics)
    warnings = len(diagnostics) - errors
    if errors:
        more = ", the first ones are shown" if errors >= MAX_ERRORS else ""
        fixes = _fixes(path, diagnostics)
        print(f"{path}: {_count(errors, 'error')}{more}{fixes}", file=sys.stderr)
        return
    print(
        f"{path}: ok · {_variants(recipes)}{verdict(recipes[0])}"
        + (f" · {_count(warnings, 'warning')}" if warnings else "")
    )


def _fixes(path: Path, diagnostics: Sequence[Diagnostic]) -> str:
    """How many of the findings `omr fix` would mend: those that lie in this file."""
    from omrlang.fixes import is_of

    number = sum(item.fix is not None and is_of(item.fix, path) for item in diagnostics)
    return f"; `omr fix` mends {number}" if number else ""


def _variants(recipes: Sequence[Recipe]) -> str:
    """How many there are, and what they differ in."""
    if len(recipes) == 1:
        return ""
    return f"{len(recipes)} variants ({recipes[0].variant} … {recipes[-1].variant}), each with "


def verdict(recipe: Recipe) -> str:
    """What the recipe holds, in one line: ``10 stages (2 source, 1 mix, …), 2 models, seed 7``."""
    kinds = Counter(stage.spec.kind for stage in recipe.stages)
    if not recipe.stages:
        return "a library without stages"
    parts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    found = f"{_count(len(recipe.stages), 'stage')} ({parts})"
    if recipe.models:
        found += f" · {_count(len(recipe.models), 'model')}: "
        found += ", ".join(model.name for model in recipe.models)
    return f"{found} · seed {recipe.seed}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
