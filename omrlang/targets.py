"""What a person types (a file, a variant, a stage, a git revision, a run, a plan) becomes the plans that it stands for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from omrlang.compiler import load_all, split_target, variant_path
from omrlang.diagnostics import Diagnostic, Reporter, did_you_mean
from omrlang.diff import Side
from omrlang.diff.origins import Origins, saved_origins
from omrlang.files import read_source
from omrlang.plan import SAVED_SUFFIX, Plan
from omrlang.planfile import BadPlanFile, read_resolved
from omrlang.planning import make_plan
from omrlang.unsaved import held

RUNS = "plans"
"""The folder of a state folder that holds the plan of each run."""


class Unreadable(Exception):
    """A target that stands for nothing; ``diagnostics`` where it is a recipe with errors."""

    def __init__(self, message: str, diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(message)
        self.diagnostics = diagnostics


def sides(target: str, state: Path, overrides: Sequence[str] = ()) -> list[Side]:
    """Every plan that a target stands for: one, or one for each variant of a sweep. Raises ``Unreadable``.

    ``FILE.omr`` · ``FILE.omr[LABEL]`` · ``REVISION:FILE.omr`` · a file of a plan · the id of a run, or its start. Behind
    a recipe ``#STAGE`` names the one training stage that is meant, with what it needs and what needs it.
    """
    text, _, focus = target.partition("#") if ".omr" in target else (target, "", "")
    if ".omr" not in text or text.endswith(SAVED_SUFFIX):
        return [_saved(text, state)]
    revision, path = _split_revision(text)
    reading = _at_revision(revision, path) if revision else nullcontext()
    with reading:
        recipes, found = load_all(path, overrides)
        if not recipes:
            raise Unreadable(f"{target} has errors", found)
        made = [
            (recipe, make_plan(recipe, state, variant_path(path, recipe), found, overrides))
            for recipe in recipes
        ]
    # What a sweep sets stands in the variant's label.
    sets = "".join(f" --set {item}" for item in overrides if "sweep(" not in item)
    named = [
        Side(
            f"{revision}:{plan.recipe}{sets}" if revision else f"{plan.recipe}{sets}",
            plan,
            Origins(recipe),
        )
        for recipe, plan in made
    ]
    return [_focused(side, focus) for side in named] if focus else named


# ---- plans that were made before ---------------------------------------------------------------


def _saved(text: str, state: Path) -> Side:
    """A plan's file, or the plan that a run left in the state folder."""
    path = Path(text)
    if not path.is_file():
        path = _run(text, state)
    try:
        if path.suffix == SAVED_SUFFIX:
            plan, values = read_resolved(path)
            return Side(text, plan, saved_origins(values))
        return Side(text, Plan.model_validate_json(path.read_bytes()))
    except BadPlanFile as error:
        raise Unreadable(str(error)) from error
    except (ValidationError, OSError) as error:
        raise Unreadable(
            f"{path} holds no plan that this version reads ({type(error).__name__})"
        ) from error


def _run(text: str, state: Path) -> Path:
    known = sorted((state / RUNS).glob("*.json"))
    found = [path for path in known if text and path.stem.startswith(text)]
    exact = [path for path in found if path.stem == text]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise Unreadable(
            f"`{text}` is the start of {len(found)} runs: {found[0].stem}, {found[1].stem}, …"
        )
    near = did_you_mean(text, [path.stem for path in known], "runs are")
    hint = f"; {near}" if near else ""
    raise Unreadable(f"`{text}` is no recipe, no file of a plan and no run in {state}{hint}")


# ---- one stage of several ----------------------------------------------------------------------


def _focused(side: Side, stage: str) -> Side:
    """The stage with what it is made of and what is made of it."""
    names = [item.name for item in side.plan.stages]
    if stage not in names:
        near = did_you_mean(stage, names, "stages are")
        raise Unreadable(f"{side.name} has no stage `{stage}`" + (f"; {near}" if near else ""))
    kept = _above(side.plan, {stage}) | _below(side.plan, {stage})
    kept |= _above(side.plan, kept)
    stages = tuple(item for item in side.plan.stages if item.name in kept)
    # Warnings are about the recipe as a whole, of which both sides may be a part.
    plan = side.plan.model_copy(update={"stages": stages, "diagnostics": ()})
    return replace(side, name=f"{side.name}#{stage}", plan=plan, focus=stage)


def _above(plan: Plan, names: set[str]) -> set[str]:
    found = set(names)
    for item in reversed(plan.stages):
        if item.name in found:
            found |= set(item.parents)
    return found


def _below(plan: Plan, names: set[str]) -> set[str]:
    found = set(names)
    for item in plan.stages:
        if found & set(item.parents):
            found.add(item.name)
    return found


# ---- git ---------------------------------------------------------------------------------------


def _split_revision(text: str) -> tuple[str, Path]:
    """``HEAD~1:x.omr`` to revision and path; a file that is really called so comes first."""
    revision, colon, path = text.partition(":")
    if not colon or split_target(Path(text))[0].exists():
        return "", Path(text)
    return revision, Path(path)


def _at_revision(revision: str, path: Path) -> AbstractContextManager[object]:
    """Within it every recipe is read as it was then, amended and used ones too. Data files are those that lie there now."""
    folder = split_target(path)[0].resolve().parent
    while not folder.is_dir():
        folder = folder.parent
    commit = _git(
        folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if commit is None:
        raise Unreadable(f"`{revision}` is no revision of the repository of {path}")
    top = _git(folder, "rev-parse", "--show-toplevel")
    return held(_Committed(commit.strip(), Path((top or "").strip()).resolve()))


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails. Raises ``Unreadable`` where there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise Unreadable("git is not installed") from error
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


class _Committed(Mapping[Path, str]):
    """Texts of a commit by their path in the working tree. A file of the tree that it lacks raises FileNotFoundError."""

    def __init__(self, commit: str, top: Path) -> None:
        self.commit, self.top = commit, top

    def __getitem__(self, path: Path) -> str:
        if not path.is_relative_to(self.top):
            raise KeyError(path)
        inside = path.relative_to(self.top).as_posix()
        text = _git(self.top, "show", f"{self.commit}:{inside}")
        if text is None:
            raise FileNotFoundError(path)
        return text

    def __iter__(self) -> Iterator[Path]:
        return iter(())

    def __len__(self) -> int:
        return 0


# ---- plain text --------------------------------------------------------------------------------


def source_text(target: str) -> str:
    """The text of the file that a target names. Raises ``Unreadable``."""
    revision, path = _split_revision(target.partition("#")[0])
    file = split_target(path)[0]
    reporter = Reporter()
    with _at_revision(revision, path) if revision else nullcontext():
        source = read_source(file, file, None, reporter)
    if source is None:
        raise Unreadable(f"{target} cannot be read", reporter.sorted())
    return source.text
