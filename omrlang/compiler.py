"""A recipe's path to its checked form; the order of the passes stands here, what makes a plan of it in ``planning``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from omrlang.check import check
from omrlang.diagnostics import Diagnostic, Reporter, did_you_mean
from omrlang.files import read_source
from omrlang.hir import Recipe
from omrlang.lints import levelled, lint
from omrlang.overrides import override
from omrlang.parse import parse
from omrlang.resolve import resolve
from omrlang.source import SourceFile, Span
from omrlang.sweeps import Sweep, Variant, sweeps, variants


def load(
    target: Path, overrides: Sequence[str] = (), deny: Collection[str] = ()
) -> tuple[Recipe | None, list[Diagnostic]]:
    """Read, parse, resolve, check, lint one recipe. It is None exactly if a diagnostic is an error.

    ``target`` is a file, or ``FILE[LABEL]`` for one variant of a file with sweeps. ``overrides`` are ``path=value``;
    ``deny`` are codes of warnings that count as errors.
    """
    recipes, found = load_all(target, overrides, deny)
    if len(recipes) > 1:
        path, _ = split_target(target)
        message = f"{path} has {len(recipes)} variants, one is wanted here"
        hint = f"such as `{path}[{recipes[0].variant}]`"
        span = Span(SourceFile(path, ""), 0, 0)
        return None, [*found, Diagnostic("E403", message, span, "error", hint)]
    return (recipes[0] if recipes else None), found


def load_all(
    target: Path, overrides: Sequence[str] = (), deny: Collection[str] = ()
) -> tuple[tuple[Recipe, ...], list[Diagnostic]]:
    """Every variant of a file, or the one that ``FILE[LABEL]`` names; none exactly if a diagnostic is an error."""
    reporter = Reporter()
    path, label = split_target(target)
    source = read_source(path, path, None, reporter)
    if source is None:
        return (), reporter.sorted()
    tree = parse(source, reporter)
    folder = path.resolve().parent
    scope = resolve(tree, folder, reporter)
    override(scope, overrides, reporter)
    found = sweeps(scope, reporter)
    recipes: list[Recipe] = []
    linted: list[Diagnostic] = []
    for variant in _asked(found, label, source, reporter):
        if found:
            scope = resolve(tree, folder, reporter, variant.chosen)
            override(scope, overrides, reporter)
        recipe = check(scope, reporter)
        if recipe is not None:
            recipe = replace(recipe, variant=variant.label, allowed=scope.allowed)
            recipes.append(recipe)
            linted += lint(recipe)
    for recipe in recipes[:1]:
        for item in levelled(linted, recipe, deny):
            reporter.report(item)
    return () if reporter.has_errors else tuple(recipes), reporter.sorted()


def _asked(
    found: list[Sweep], label: str | None, source: SourceFile, reporter: Reporter
) -> list[Variant]:
    """The variants to make: the one that is named, else all; one without a label where nothing is swept."""
    if found and not all(sweep.options for sweep in found):
        return []
    made = variants(found, reporter)
    if label is None or reporter.has_errors:
        return made
    named = [variant for variant in made if variant.label == label]
    if not named:
        labels = [variant.label for variant in made if variant.label]
        message = f"{source.path} has no variant `{label}`"
        hint = did_you_mean(label, labels, "there are") or (
            "nothing is swept in it" if not labels else None
        )
        reporter.error("E403", message, Span(source, 0, 0), hint)
    return named


def split_target(target: Path) -> tuple[Path, str | None]:
    """``x.omr[distil.n=4]`` to the file and the label; None where none is named.

    >>> split_target(Path("x.omr[distil.n=4]"))
    (PosixPath('x.omr'), 'distil.n=4')
    """
    text = str(target)
    file, bracket, rest = text.partition(".omr[")
    if not bracket or not rest.endswith("]"):
        return target, None
    return Path(f"{file}.omr"), rest[:-1]


def variant_path(target: Path, recipe: Recipe) -> Path:
    """What a recipe of this file is called: the file, with its label where it is one of several."""
    path, _ = split_target(target)
    return Path(f"{path}[{recipe.variant}]") if recipe.variant else path
