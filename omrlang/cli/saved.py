"""``x.omrplan`` on the command line: saved, shown, and held against what is there now before it is run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from omrlang.cli.plans import STALE, load_plan
from omrlang.hir import Recipe
from omrlang.plan import Exit, Plan
from omrlang.planfile import check_hashes, packed, read_plan


def save(path: Path, plan: Plan, recipe: Recipe) -> bool:
    """Write the plan with all that it was made of, whole or not at all; says why it could not."""
    from omrlang.cli.recipe_text import facts

    data = packed(plan, list(facts(recipe)), recipe)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        print(f"omr: {path} cannot be written: {error.strerror}", file=sys.stderr)
        return False
    return True


def show_saved(path: Path, *, as_json: bool = False) -> int:
    """Print a saved plan. Reads nothing else, so that it shows on any machine. Raises ``BadPlanFile``."""
    plan = read_plan(path)
    if as_json:
        print(plan.model_dump_json(indent=1))
        return 0
    from omrlang.cli.plan_text import plan_text

    print(plan_text(plan, shutil.get_terminal_size((100, 24)).columns, saved=str(path)), end="")
    return 0


def load_saved(path: Path, state: Path) -> Plan:
    """The plan to run: the saved one, with ``exit`` 4 where what it was made of is not what is there; then it was said
    what moved. Raises ``BadPlanFile``."""
    from omrlang.select import Unselectable, Wanted
    from omrlang.stale import moved_since, without_done

    saved = read_plan(path)
    check_hashes(saved, path)
    recipe = _recipe(saved)
    try:
        wanted = Wanted(saved.selection, saved.forced)
        now = load_plan(recipe, state, list(saved.overrides), wanted)
    except Unselectable as error:
        return _stale(saved, path, (str(error),))
    if now is None:
        return _stale(saved, path, (f"{recipe} cannot be read any more",))
    if moved := moved_since(saved, now):
        return _stale(saved, path, moved)
    return without_done(saved, now).model_copy(update={"recipe": str(recipe)})


def _stale(saved: Plan, path: Path, moved: tuple[str, ...]) -> Plan:
    told = "".join(f"\n  {line}" for line in moved)
    print(f"error: {path} is stale; plan again. What moved:{told}", file=sys.stderr)
    return saved.model_copy(update={"exit": Exit(code=STALE, reason="stale")})


def _recipe(saved: Plan) -> Path:
    """Where the recipe lies: as it was given if that leads there from here, else in its folder. One that amends a recipe of
    another folder lies in neither; it is looked for where it was."""
    from omrlang.compiler import split_target

    given, inside = Path(saved.recipe), Path(saved.folder) / Path(saved.recipe).name
    if given.resolve().parent == Path(saved.folder) or not split_target(inside)[0].exists():
        return given
    return inside
