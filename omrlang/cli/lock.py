"""``omr lock FILE``: what the recipe reads from outside is written down in ``FILE.lock``, or held against it."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from omrlang.cli.arguments import add_set, add_state
from omrlang.cli.plan_view.layout import plural
from omrlang.lock import Lock, Locked, lock_path, lock_text, of, read_lock
from omrlang.pins import Pin

DRIFT = 4
COMMIT_DIGITS = 40


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("lock", help="write down what a recipe reads from outside")
    parser.add_argument("file", type=Path, help="the recipe")
    parser.add_argument(
        "--update",
        action="append",
        default=[],
        metavar="NAME",
        help="ask the hub again for this dataset or model, `all` for each; what is locked stays otherwise",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 4 where something moved"
    )
    add_state(parser)
    add_set(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 1 where the recipe is wrong or something cannot be had; 4 where ``--check`` finds that something moved."""
    from omrlang.compiler import split_target

    pins = _pins(args)
    if pins is None:
        return 1
    path = lock_path(split_target(args.file)[0])
    before = read_lock(path)
    if gone := [pin.problem for pin in pins if pin.problem and not pin.on_a_hub]:
        print("\n".join(f"error: {problem}" for problem in gone), file=sys.stderr)
        return 1
    again = {"all"} if args.check else set(args.update)
    after = of([*(_locked(pin, before, again) for pin in pins), *_wheels(args)])
    moved = list(_changes(before, after))
    print(
        "\n".join(moved) if moved else f"{path}: {plural(len(after.pins), 'input')}, all as locked"
    )
    if args.check:
        return DRIFT if moved else 0
    return _write(path, after) if moved or not before.exists else 0


def _write(path: Path, lock: Lock) -> int:
    from omrlang.cli.files import replace_text

    if not replace_text(path, lock_text(lock.pins.values())):
        return 1
    print(f"{path}: {plural(len(lock.pins), 'input')}")
    return 0


def _pins(args: argparse.Namespace) -> Sequence[Pin] | None:
    """What every variant reads, each once; None after the recipe's errors were printed."""
    from omrlang.compiler import load_all
    from omrlang.lower import lower
    from omrlang.pins import Pins
    from omrlang.render import render

    recipes, found = load_all(args.file, args.set)
    if not recipes:
        print(render(found), end="", file=sys.stderr)
        return None
    pins = Pins.open(recipes[0].folder, args.state)
    stages = (stage for recipe in recipes for stage in lower(recipe, pins))
    once = {(pin.kind, pin.what, pin.revision): pin for stage in stages for pin in stage.pins}
    return tuple(once.values())


def _locked(pin: Pin, before: Lock, again: set[str]) -> Locked:
    """A local file as it is now; of a hub what is locked, or its commit now. Raises ``InputError``."""
    if not pin.on_a_hub:
        assert pin.revision is not None, "files without a problem have a hash"
        return Locked(
            kind=pin.kind,
            what=pin.what,
            revision=pin.revision,
            num_rows=pin.num_rows,
            num_bytes=pin.num_bytes,
        )
    known = before.find(pin.kind, pin.what, pin.revision)
    if known is not None and not again & {"all", pin.what}:
        return known
    return Locked(kind=pin.kind, what=pin.what, asked=pin.revision, revision=_commit(pin))


def _commit(pin: Pin) -> str:
    """A commit is its own revision; a branch or a tag is asked for."""
    asked = pin.revision
    if asked is not None and len(asked) == COMMIT_DIGITS and set(asked) <= set("0123456789abcdef"):
        return asked
    from omrlang.hub import commit_of

    return commit_of(pin.kind, pin.what, asked)


def _wheels(args: argparse.Namespace) -> Iterator[Locked]:
    """The models that lie in packages, by the sha256 of the package."""
    from omrlang.compiler import load_all
    from omrlang.references import named_models
    from omrlang.types import WheelModel

    recipes, _ = load_all(args.file, args.set)
    models = (m for recipe in recipes for stage in recipe.stages for m in named_models(stage.spec))
    names = {m.source.requirement for m in models if isinstance(m.source, WheelModel)}
    for requirement in sorted(names):
        yield Locked(kind="model", what=requirement, revision=_wheel_hash(requirement, args.state))


def _wheel_hash(requirement: str, state: Path) -> str:
    from omr_runtime.errors import RunError
    from omr_runtime.models.wheel import find_wheel
    from omrlang.diagnostics import InputError

    try:
        with find_wheel(requirement, state / "downloads").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except RunError as error:
        raise InputError(str(error)) from error


def _changes(before: Lock, after: Lock) -> Iterator[str]:
    """What the lock would gain, lose or hold otherwise, a line each."""
    for key in sorted({*before.pins, *after.pins}, key=str):
        old, new = before.pins.get(key), after.pins.get(key)
        if old is None and new is not None:
            yield f"  + {_named(new)}  {new.revision[:12]}"
        elif new is None and old is not None:
            yield f"  - {_named(old)}  {old.revision[:12]}"
        elif old is not None and new is not None and old.revision != new.revision:
            yield f"  ~ {_named(new)}  {old.revision[:12]} -> {new.revision[:12]}"


def _named(pin: Locked) -> str:
    return f"{pin.what}@{pin.asked}" if pin.asked else pin.what
