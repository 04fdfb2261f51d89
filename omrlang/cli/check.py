"""``omr check FILE…``: what is wrong with a recipe, or what it holds."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.cli.arguments import add_set

if TYPE_CHECKING:
    from omrlang.diagnostics import Diagnostic
    from omrlang.hir import Recipe


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("check", help="find what is wrong with a recipe")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a recipe")
    add_set(parser)
    parser.add_argument(
        "--deny", action="append", default=[], metavar="CODE", help="make a warning an error"
    )
    parser.add_argument("--concise", action="store_true", help="one line a finding")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 if every file is right, 1 if one is not."""
    codes = [_check(path, args) for path in args.files]
    return max(codes)


def _check(path: Path, args: argparse.Namespace) -> int:
    from omrlang.compiler import load_all
    from omrlang.diagnostics import MAX_ERRORS

    recipes, diagnostics = load_all(path, args.set, deny=args.deny)
    _print(diagnostics, args.concise)
    errors = sum(item.severity == "error" for item in diagnostics)
    warnings = len(diagnostics) - errors
    if errors:
        more = ", the first ones are shown" if errors >= MAX_ERRORS else ""
        print(f"{path}: {_count(errors, 'error')}{more}", file=sys.stderr)
        return 1
    print(
        f"{path}: ok · {_variants(recipes)}{verdict(recipes[0])}"
        + (f" · {_count(warnings, 'warning')}" if warnings else "")
    )
    return 0


def _print(diagnostics: Sequence[Diagnostic], concise_view: bool) -> None:
    from omrlang.render import concise, render

    if not diagnostics:
        return
    if concise_view:
        print("\n".join(concise(item) for item in diagnostics), file=sys.stderr)
    else:
        print(render(diagnostics), file=sys.stderr)


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
