"""The small studies: every variant can be planned on a laptop, and differs from the others in what the study is about."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from omrlang.cli.plans import load_plans
from omrlang.diff import Side, diff
from omrlang.format import format_text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import studies  # noqa: E402

STUDIES = sorted((ROOT / "pipelines" / "findings").glob("*.omr"))
ABOUT = {
    "answers": {"n"},
    "diversity": {"from"},
    "algorithms": {"algorithm"},
    "format_weight": {"reward"},
}
"""By study: what its variants may differ in, by the first word of a factor's path."""
TWO_HOURS_S = 7_200


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_variants_differ_in_one_thing(path: Path, tmp_path: Path) -> None:
    assert format_text(path.read_text()) == path.read_text()
    plans = load_plans(path, tmp_path, [])
    assert len(plans) >= 3
    for plan in plans:
        assert plan.because
        assert plan.exit.code == 0, plan.exit.reason
        found = diff(Side("first", plans[0]), Side("this", plan))
        assert {factor.path.split(".")[0] for factor in found.factors} <= ABOUT[path.stem]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_three_seeds_take_two_hours_at_most(path: Path, tmp_path: Path) -> None:
    """By the plans' own middle estimates, nothing shared between variants."""
    seconds = [plan.totals.seconds.mid or 0.0 for plan in load_plans(path, tmp_path, [])]
    assert 0 < 3 * sum(seconds) <= TWO_HOURS_S


def test_algorithms_are_compared_where_a_clip_range_can_act(tmp_path: Path) -> None:
    path = next(path for path in STUDIES if path.stem == "algorithms")
    for plan in load_plans(path, tmp_path, []):
        spec = plan.stage("reasoner").spec.model_dump()
        assert spec["batch"]["value"] / spec["minibatch"]["value"] >= 4
        assert not any(item.code == "W101" for item in plan.diagnostics)


def test_each_study_has_a_command_and_a_place_for_its_table() -> None:
    page = (ROOT / "docs" / "small_studies.md").read_text()
    assert studies.RECIPES.keys() == {*studies.ROADS, *ABOUT}
    for name, recipe in studies.RECIPES.items():
        assert (ROOT / recipe).exists()
        page = studies.placed(page, name, f"a table of {name}")
        assert page.count(f"a table of {name}\n\n<!-- end {name} -->") == 1
    assert studies.placed(page, "answers", "another") != page
    with pytest.raises(SystemExit, match="no place"):
        studies.placed(page, "nothing", "")
