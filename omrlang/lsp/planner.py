"""Recipes become plans, beside everything else: data files may be big and are hashed. Uses no network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from omrlang.compiler import variant_path
from omrlang.hir import Recipe
from omrlang.pins import Pins
from omrlang.plan import Plan
from omrlang.planning import make_plan

log = logging.getLogger("omr.lsp")


@dataclass(slots=True)
class Planner:
    """One thread that tells each plan once it is made; of several wishes for a file the newest counts.

    ``wishes`` are the recipes with their folders of runs, ``hashes`` what is known of data files, so that each is read once.
    """

    tell: Callable[[Path, Plan], None]
    wishes: dict[Path, tuple[Recipe, Path]] = field(default_factory=dict)
    hashes: dict[str, list[object]] = field(default_factory=dict)
    _queue: SimpleQueue[Path] = field(default_factory=SimpleQueue)
    _thread: Thread | None = None

    def wish(self, path: Path, recipe: Recipe, state: Path) -> None:
        """Ask for the plan of a recipe. Returns at once."""
        self.wishes[path] = (recipe, state)
        self._queue.put(path)
        if self._thread is None:
            # A daemon: the server's end does not wait until a big file is hashed.
            self._thread = Thread(target=self._work, name="planner", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            path = self._queue.get()
            wish = self.wishes.pop(path, None)
            if wish is None:
                continue
            try:
                self.tell(path, self.plan(path, *wish))
            except Exception:  # a boundary: the next recipe is planned all the same
                log.exception("planning %s failed", path)

    def plan(self, path: Path, recipe: Recipe, state: Path) -> Plan:
        """Runs know a recipe by its path from where ``omr`` was called, which is where their folder lies."""
        home = state.resolve().parent
        known_as = path.relative_to(home) if path.is_relative_to(home) else path
        pins = Pins.open(recipe.folder, state)
        pins.known = self.hashes = {**pins.known, **self.hashes}
        return make_plan(recipe, state, variant_path(known_as, recipe), pins=pins)
