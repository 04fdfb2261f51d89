"""Rows to what a recipe's own Python verifier says of them, in workers like those of math-verify.

The function gets a plain dict: the row's columns, ``extra`` read from its JSON. It returns a truth value, or a number
where the recipe says ``gives = number``. A call that takes too long, raises, ends its process or returns something else
has no answer: the verdict is unknown, with the reason.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omr_runtime.errors import RunError
from omr_runtime.verify.workers import Limits, Pool, Reply, Task, serve
from omrlang.plugins import Unreadable, read_code, split_entry
from omrlang.types import Verifier

MEMORY_BYTES = 8 * 2**30


class Plugin:
    """A verifier's workers. RunError at once where its code is not that of the plan, or cannot be imported."""

    def __init__(
        self, verifier: Verifier, base: Path, num_workers: int = 1, limits: Limits | None = None
    ) -> None:
        self.name, entry = verifier.name, verifier.source.entry
        folder = (base / verifier.folder).resolve()
        _check_code(verifier, folder)
        args = (str(folder), entry, verifier.gives)
        self._pool = Pool("omr_runtime.verify.plugin", args, num_workers, limits or Limits())
        try:
            self._pool.ask([None])
        except (OSError, ValueError) as error:
            self.close()
            raise RunError(f"verifier {self.name} ({entry}) does not start: {error}") from error

    def ask(self, rows: Sequence[Mapping[str, Any]]) -> list[Reply]:
        """What it says of each row, in order. The value is None where it is unknown."""
        return self._pool.ask([_plain(row) for row in rows])

    def close(self) -> None:
        self._pool.close()


def _check_code(verifier: Verifier, folder: Path) -> None:
    """What runs is what the plan was made of."""
    try:
        code = read_code(folder, verifier.source.entry)
    except Unreadable as error:
        raise RunError(f"verifier {verifier.name}: its code cannot be read: {error}") from error
    if code.digest != verifier.code:
        files = ", ".join(map(str, code.files))
        raise RunError(
            f"verifier {verifier.name}: its code ({files}) changed after the plan was made; plan again"
        )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as the function gets it."""
    extra = row.get("extra")
    return {**row, "extra": json.loads(extra) if isinstance(extra, str) else {}}


# ---- in the worker ---------------------------------------------------------------------------------------------


def load(folder: str, entry: str) -> Callable[[dict[str, Any]], Any]:
    """The function, from a file below the folder and from nowhere else."""
    module_name, name = split_entry(entry)
    sys.path.insert(0, folder)
    module = importlib.import_module(module_name)
    if not Path(module.__file__ or "/").resolve().is_relative_to(folder):
        raise ImportError(
            f"{module_name} is another module's name; the recipe's file needs one of its own"
        )
    function: Callable[[dict[str, Any]], Any] = getattr(module, name)
    if not callable(function):
        raise TypeError(f"{entry} is no function")
    return function


def checked(value: Any, gives: str) -> Reply:
    """What the function returned, if it is what the recipe says. A NumPy or tensor scalar counts as its value.

    >>> checked(0.5, "number").value, checked("yes", "bool").reason
    (0.5, "it returned 'yes', which is no truth value")
    """
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return Reply(value)
    if gives == "number" and isinstance(value, int | float) and math.isfinite(value):
        return Reply(float(value))
    what = "truth value" if gives == "bool" else "finite number"
    return Reply(None, f"it returned {repr(value)[:60]}, which is no {what}")


def main(parent: str, folder: str, entry: str, gives: str) -> None:
    loaded: list[Callable[[dict[str, Any]], Any]] = []

    def answer(task: Task) -> Reply:
        return Reply(None) if task is None else checked(loaded[0](task), gives)

    serve(int(parent), MEMORY_BYTES, lambda: loaded.append(load(folder, entry)), answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
