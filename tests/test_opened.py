"""Every number of a plan opens into what it was made of, and what it was made of makes it again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.compiler import load
from omrlang.estimate.opened import Number, numbers, opened
from omrlang.estimate.ranges import STRENGTH
from omrlang.plan import Estimate, Plan
from omrlang.planning import make_plan

PIPELINES = Path(__file__).parents[1] / "pipelines"
RECIPES = sorted(
    path for path in PIPELINES.rglob("*.omr") if not load(path)[1] or load(path)[0] is not None
)


@cache
def planned(path: Path) -> Plan:
    recipe, _ = load(path)
    assert recipe is not None
    return make_plan(recipe, Path("nowhere"), path)


def nodes(number: Number) -> Iterator[Estimate]:
    """The number and all that it was made of, each once."""
    waiting, seen = [number], set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Estimate):
            yield item
        waiting += item.made.parts.values()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_metric_opens(path: Path) -> None:
    known = numbers(planned(path))
    assert len(known) > 20
    for name, number in known.items():
        assert number.formula, name
        lines = list(opened(number, known, deep=True))
        assert all(line.number.formula for line in lines), name
        if number.origin == "unknown" and lines:
            assert any(line.number.origin == "unknown" for line in lines), name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_inputs_make_the_number_again_and_the_worst_names_it(path: Path) -> None:
    for name, number in numbers(planned(path)).items():
        for node in nodes(number):
            made = node.made
            if node.lo is None or node.mid is None or node.hi is None or made.rule is None:
                continue
            assert node.lo <= node.mid <= node.hi, (name, node)
            mids = {part: item.mid for part, item in made.parts.items()}
            assert made.rule(**mids) == pytest.approx(
                node.mid, rel=1e-9, abs=0.005 if node.unit == "USD" else 0
            ), (name, node)
            worst = max((STRENGTH.index(item.origin) for item in made.parts.values()), default=0)
            assert STRENGTH.index(node.origin) >= min(worst, STRENGTH.index("assumed")), node


def test_a_range_holds_all_that_its_inputs_may_be() -> None:
    """The rule falls in the inputs that it says it falls in, and rises in the others."""
    for number in numbers(planned(PIPELINES / "openmmreasoner" / "openmmreasoner.omr")).values():
        for node in nodes(number):
            made = node.made
            if node.lo is None or node.hi is None or made.rule is None:
                continue
            mids = {part: item.mid for part, item in made.parts.items()}
            for part, item in made.parts.items():
                for end in (item.lo, item.hi):
                    value = made.rule(**{**mids, part: end})
                    slack = 1e-9 * abs(value)
                    assert node.lo - slack <= value <= node.hi + slack, (node.formula, part)


def test_deep_goes_down_to_what_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, state = str(PIPELINES / "quickstart.omr"), ["--state", str(tmp_path)]
    assert main(["explain", recipe, "accepted.rows", *state]) == 0
    said = capsys.readouterr().out
    assert said.startswith("accepted.rows = 2,730 rows, declared\n")
    assert "`right` of the scripted teacher" in said
    assert "-> traces.rows" in said
    assert "n of the place" not in said
    assert main(["explain", recipe, "accepted.rows", "--deep", *state]) == 0
    assert "n of the place" in capsys.readouterr().out


def test_a_sum_opens_into_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(PIPELINES / "quickstart.omr")
    assert main(["explain", recipe, "total.seconds", "--state", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "sum over stages" in said
    assert "-> reasoner.seconds" in said
