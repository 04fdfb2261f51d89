"""What a check costs: of the library only what a recipe names is read, and time grows with the stages."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from omrlang.compiler import load
from omrlang.diagnostics import Reporter
from omrlang.parse import parse
from omrlang.planning import make_plan
from omrlang.resolve import resolve
from omrlang.source import SourceFile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from scaling import deep, wide  # noqa: E402


def test_a_module_of_the_library_is_read_where_it_is_named() -> None:
    text = "omr 1\n\nuse std.models\n\nmodel mine = models.qwen2_5_vl_7b\n"
    scope = resolve(parse(SourceFile(Path("x.omr"), text), Reporter()), ROOT, Reporter())
    models = scope.modules["models"].drafts
    assert not models.known()
    assert models["qwen2_5_vl_7b"].name == "models.qwen2_5_vl_7b"
    assert len(models.known()) == 1
    assert len(models) > 40


def test_checking_and_planning_grow_with_the_stages_and_not_with_their_square(
    tmp_path: Path,
) -> None:
    for make in (wide, deep):
        seconds(make(60), tmp_path)
        small, large = seconds(make(120), tmp_path), seconds(make(1_200), tmp_path)
        for before, after in zip(small, large, strict=True):
            assert after < 25 * max(before, 0.02), make.__name__


def seconds(text: str, folder: Path) -> tuple[float, float]:
    """Of the processor, so that other work on the machine does not count."""
    path = folder / "x.omr"
    path.write_text(text)
    start = time.process_time()
    recipe, _ = load(path)
    checked = time.process_time()
    assert recipe is not None
    make_plan(recipe, folder / "state", path)
    return checked - start, time.process_time() - checked
