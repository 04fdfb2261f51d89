"""The published recipe against its paper's own figures, the scripts' against their defects, and one file a table's row."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from omrlang.compiler import load
from omrlang.diagnostics import Diagnostic
from omrlang.format import format_text
from omrlang.hir import Recipe
from omrlang.plan import Costs, Estimate, Plan
from omrlang.planning import make_plan
from omrlang.render import render
from omrlang.schema import Rl, Sample, Sft
from omrlang.types import Fsdp

FOLDER = Path(__file__).parents[1] / "pipelines" / "openmmreasoner"
ABLATIONS = sorted((FOLDER / "ablations").glob("*.omr"))
ALL = [FOLDER / "openmmreasoner.omr", FOLDER / "as_released.omr", *ABLATIONS]


@cache
def checked(path: Path) -> tuple[Recipe, list[Diagnostic]]:
    recipe, diagnostics = load(path)
    assert recipe is not None, render(diagnostics)
    return recipe, diagnostics


@cache
def planned(path: Path) -> Plan:
    return make_plan(checked(path)[0], Path("nowhere"), path)


def costs(path: Path, stage: str) -> Costs:
    found = planned(path).stage(stage).costs
    assert found is not None
    return found


def mid(estimate: Estimate) -> float:
    assert estimate.mid is not None, estimate.formula
    return estimate.mid


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_formatted_checked_and_planned(path: Path) -> None:
    assert format_text(path.read_text()) == path.read_text()
    assert {stage.action for stage in planned(path).stages} == {"new"}


# ---- the paper's figures ---------------------------------------------------------------------------------------------

PAPER = FOLDER / "openmmreasoner.omr"
EXACT = {
    ("cold_start", "steps"): 4_300,
    ("reasoner", "steps"): 1_232,
    ("reasoner", "rollouts"): 2_523_136,
}
ROUNDED = {
    "questions": 103_000,
    "distil": 824_000,
    "accepted": 583_000,
    "sft_data": 874_357,
    "rl_data": 74_971,
    "tournament": 24_842 - 3_000,
}
"""Rows that leave a stage. Of the tournament the paper asks CharXiv's descriptive questions four times, this recipe once."""


@pytest.mark.parametrize(("stage", "metric"), EXACT)
def test_what_the_paper_prints_exactly_is_exact(stage: str, metric: str) -> None:
    assert mid(costs(PAPER, stage).extra[metric]) == EXACT[stage, metric]


@pytest.mark.parametrize("stage", ROUNDED)
def test_what_the_paper_rounds_is_within_one_percent(stage: str) -> None:
    rows = costs(PAPER, stage).rows_out
    assert mid(rows) == pytest.approx(ROUNDED[stage], rel=0.01)
    assert rows.origin in ("declared", "formula")


def test_tokens_of_supervised_training_are_its_slots() -> None:
    """4,300 steps of 32 packs of 61,440 tokens, at most; a pack is never quite full."""
    slots = 4_300 * 32 * 61_440
    assert slots == pytest.approx(8.454e9, rel=1e-4)
    assert mid(costs(PAPER, "cold_start").tokens) == pytest.approx(slots, rel=0.05)


def test_one_update_for_each_rollout_batch() -> None:
    spec = planned(PAPER).stage("reasoner").spec
    assert isinstance(spec, Rl)
    assert spec.minibatch == spec.batch
    assert spec.steps == 1_232


def test_the_sources_of_the_reinforcement_mix_are_those_of_the_project_page() -> None:
    rows = costs(PAPER, "rl_data").rows_by_source
    drawn = 74_971 * 0.1 / 100 / 2  # the page rounds its shares to a tenth of a percent
    assert mid(rows["sources.virl39k"]) == pytest.approx(38_835, abs=drawn)
    assert mid(rows["sources.mmk12"]) == pytest.approx(4_723, abs=drawn)


def test_what_nobody_published_is_unknown() -> None:
    plan = planned(PAPER)
    spec = plan.stage("distil").spec
    assert isinstance(spec, Sample)
    assert spec.unpublished == ("top_p",)
    assert costs(PAPER, "sources.tqa").rows_out.mid is None
    assert plan.totals.usd.mid is None
    assert plan.totals.not_estimated > 0


# ---- the scripts -----------------------------------------------------------------------------------------------------


def codes(path: Path) -> set[str]:
    return {item.code for item in checked(path)[1]}


def test_the_paper_s_recipe_has_fewer_mistakes_than_the_scripts() -> None:
    """Which of the release's defects each warning is of stands in test_released_lints."""
    released = codes(FOLDER / "as_released.omr")
    assert codes(PAPER) < released
    assert {"W103", "W110", "W112", "W113", "W114", "W121"} <= released - codes(PAPER)


# ---- one file a row of the tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_a_row_is_a_few_lines_with_a_reason(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("amend ")
    assert lines[1].startswith("because ")
    assert len(lines) <= 18


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_a_row_changes_the_recipe(path: Path) -> None:
    base = {stage.name: stage.fingerprint for stage in planned(PAPER).stages}
    changed = {
        stage.name for stage in planned(path).stages if base.get(stage.name) != stage.fingerprint
    }
    assert changed


@pytest.mark.parametrize(
    ("name", "n", "rows"), [("sampling_x1", 1, 59_000), ("sampling_x8", 8, 583_000)]
)
def test_traces_that_table_3_counts(name: str, n: int, rows: int) -> None:
    path = FOLDER / "ablations" / f"{name}.omr"
    spec = planned(path).stage("distil").spec
    assert isinstance(spec, Sample)
    assert spec.n == n
    assert mid(costs(path, "sft_data").rows_out) == pytest.approx(rows, rel=0.01)


def test_fewer_traces_of_a_question_are_those_that_were_drawn_for_more() -> None:
    """The samples of x1 to x8 are keyed alike, so a sweep pays for the largest alone."""
    specs = [
        planned(FOLDER / "ablations" / f"sampling_x{n}.omr").stage("distil").spec
        for n in (1, 2, 4, 8)
    ]
    assert len({spec.model_copy(update={"n": 1}).model_dump_json() for spec in specs}) == 1


def test_a_filter_without_a_published_bound_lets_an_unknown_number_through() -> None:
    path = FOLDER / "ablations" / "filter_length.omr"
    assert costs(path, "long_enough").rows_out.mid is None
    assert planned(path).stage("long_enough").spec.unpublished


@pytest.mark.parametrize("path", ALL[:2], ids=lambda path: path.stem)
def test_models_are_cut_up_as_in_the_scripts(path: Path) -> None:
    """lmms-engine's `reshard_after_forward: false`; verl's `param_offload` and `optimizer_offload`. The weights stand whole in a
    pass there, and lie on the host here; neither is a factor of what is learned."""
    for stage in planned(path).stages:
        if isinstance(stage.spec, Sft):
            assert stage.spec.sharding == Fsdp(reshard_after_forward=False)
            memory = costs(path, stage.name).memory
            assert memory is not None
            assert mid(memory.parts["gathered"]) > 2 * 8.2e9
        if isinstance(stage.spec, Rl):
            assert stage.spec.sharding == Fsdp(offload=True)
            memory = costs(path, stage.name).memory
            assert memory is not None
            assert mid(memory.parts["weights"]) == mid(memory.parts["optimiser"]) == 0
    other, _ = load(path, ["cold_start.sharding=zero(2)"])
    assert other is not None
    moved = make_plan(other, Path("nowhere"), path).stage("cold_start").fingerprint
    assert moved == planned(path).stage("cold_start").fingerprint
