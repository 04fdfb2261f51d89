"""A diff whose factor moves other things along becomes the amending file that holds them, which is planned and compared
again until nothing is left to hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omrlang.compiler import split_target
from omrlang.diff import Diff, Side, diff
from omrlang.diff.report import Hold
from omrlang.format import format_text
from omrlang.targets import Unreadable, sides
from omrlang.unsaved import held

MAX_ROUNDS = 12
"""Holding the shares of a mix changes how many rows there are, and with it the epochs; no chain is longer."""


@dataclass(frozen=True, slots=True)
class Held:
    """The file's text, and the diff of it against A."""

    text: str
    diff: Diff


def hold(a: Side, b_target: str, path: Path, state: Path, overrides: Sequence[str] = ()) -> Held:
    """The amending file of B at ``path`` (which is not written here) that holds what can be held. Raises ``Unreadable``."""
    (b,) = sides(b_target, state, overrides)
    made = Held("", diff(a, b))
    holds: dict[tuple[str, str], Hold] = {}
    for _ in range(MAX_ROUNDS):
        new = [m.hold for m in made.diff.confounds if m.hold is not None]
        if not new:
            break
        # One at a time: what is held first moves the numbers of what comes after it.
        holds[new[0].stage, new[0].key] = new[0]
        text = _text(b_target, path, made.diff, list(holds.values()), overrides)
        with held({path.resolve(): text}):
            (side,) = sides(str(path), state)
        made = Held(text, diff(a, side))
    if not holds:
        raise Unreadable("nothing that moves along has a setting that would hold it")
    return made


def _text(
    target: str, path: Path, found: Diff, holds: Sequence[Hold], overrides: Sequence[str]
) -> str:
    file, label = split_target(Path(target.partition("#")[0]))
    if label is not None:
        raise Unreadable(f"{target} is a variant: write its values into an amending file first")
    base = Path(os.path.relpath(file.resolve(), path.resolve().parent)).as_posix()
    acting = ", ".join(factor.address for factor in found.acting) or "the factor"
    why = f"holds what moves along with {acting}; numbers are the plan's estimates"
    blocks = [f'amend "{base}"\nbecause "{why}"', *map(_setting, overrides)]
    stages = {item.stage: [one for one in holds if one.stage == item.stage] for item in holds}
    text = "\n\n".join([*blocks, *(_block(name, items) for name, items in stages.items())])
    return format_text(text + "\n")


def _setting(override: str) -> str:
    """``traces.n=4`` as a block of an amending file."""
    path, _, value = override.partition("=")
    name, _, key = path.strip().partition(".")
    if not key:
        return f"seed = {value}" if name == "seed" else f"let {name} = {value}"
    return (
        f"{name} {key} {value}"
        if key in ("from", "with", "on")
        else f"{name} {{ {key} = {value} }}"
    )


def _block(name: str, holds: Sequence[Hold]) -> str:
    clause = "".join(f" from {item.value}" for item in holds if item.key == "from")
    settings: Mapping[str, str] = {item.key: item.value for item in holds if item.key != "from"}
    lines = [f"  {key} = {value}" for key, value in settings.items()]
    lines += ["  expect = none"] if any(item.drops_expect for item in holds) else []
    return f"{name}{clause}" + (" {\n" + "\n".join(lines) + "\n}" if lines else "")
