"""A recipe's path to its checked form and its plan; the order of the passes stands here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omrlang.check import check
from omrlang.diagnostics import Diagnostic, Reporter
from omrlang.hir import Recipe
from omrlang.parse import parse
from omrlang.resolve import read_source, resolve


def load(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe | None, list[Diagnostic]]:
    """Read, parse, resolve, check. The recipe is None exactly if a diagnostic is an error."""
    reporter = Reporter()
    source = read_source(path, path, None, reporter)
    if source is None:
        return None, reporter.sorted()
    tree = parse(source, reporter)
    scope = resolve(tree, path.resolve().parent, reporter, overrides)
    recipe = check(scope, reporter)
    return recipe, reporter.sorted()
