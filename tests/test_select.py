"""Selectors and ``--force``: which stages a plan runs, what it leaves, and what a person is told."""

from __future__ import annotations

from pathlib import Path

import made_recipes as made
import pytest
from earlier_runs import finished, planned, write_index

from omrlang.plan import Plan
from omrlang.schema import Spec
from omrlang.select import Unselectable

ALL = tuple(spec.name for spec in made.quickstart())


def edited(**by: dict[str, object]) -> tuple[Spec, ...]:
    return tuple(spec.model_copy(update=by.get(spec.name, {})) for spec in made.quickstart())


def due(plan: Plan) -> set[str]:
    return {stage.name for stage in plan.due}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a run of the whole quickstart."""
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    return tmp_path


@pytest.mark.parametrize(
    ("selectors", "names"),
    [
        (["puzzles"], {"puzzles"}),
        (["+traces"], {"puzzles", "questions", "traces"}),
        (["+traces", "held_out"], {"puzzles", "questions", "traces", "held_out"}),
        (["+cold_start & kind:source"], {"puzzles"}),
        (["+sample"], None),
        (["source:puzzles+ & +traces"], {"puzzles", "questions", "traces"}),
        (["state:new"], set(ALL)),
        (["+t*"], {"puzzles", "questions", "traces"}),
        (["reason:new & kind:source"], {"puzzles", "held_out"}),
        (["state:cached"], set()),
    ],
)
def test_what_a_selector_means(selectors: list[str], names: set[str] | None) -> None:
    if names is None:
        with pytest.raises(Unselectable, match="no stage is called `sample`"):
            planned(select=tuple(selectors))
    else:
        assert due(planned(select=tuple(selectors))) == names


def test_a_plan_counts_only_what_is_selected() -> None:
    whole, part = planned(), planned(select=("+traces",))
    assert part.totals.seconds.mid is not None
    assert whole.totals.seconds.mid is not None
    assert part.totals.seconds.mid < whole.totals.seconds.mid
    assert [stage.name for stage in part.stages] == [stage.name for stage in whole.stages]
    assert part.selection == ("+traces",)


def test_modified_are_those_that_were_edited_and_not_what_follows(state: Path) -> None:
    specs = edited(traces={"n": 4}, cold_start={"recompute": True})
    assert due(planned(*specs, state=state, select=("state:modified",))) == {"traces"}
    after = due(planned(*specs, state=state, select=("state:modified+",)))
    assert after == {"traces", "accepted", "cold_start", "reasoner", "after"}
    assert due(planned(*specs, state=state, select=("state:modified.rows",))) == {"traces"}
    assert due(planned(*specs, state=state, select=("state:modified.weights",))) == set()


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("tracs", "no stage is called `tracs`; `traces` exists"),
        ("state:modifed", "no state is called `modifed`; `modified` exists"),
        ("state:modified.row", "no class of settings is called `row`; `rows` exists"),
        ("source:puzles", "no source is called `puzles`; `puzzles` exists"),
        ("stat:new", "no selector is called `stat`; `state` exists"),
        ("kind:sources", "no kind is called `sources`; `source` exists"),
        ("reason:param_change", "no reason is called `param_change`; `param_changed` exists"),
        ("puzzles &", "an empty selector"),
        ("+", "an empty selector"),
        ("accepted", "`accepted` is selected and stands on `traces`, which must run first; `--select +accepted`"),
    ],
)  # fmt: skip
def test_what_a_person_is_told(selector: str, told: str) -> None:
    with pytest.raises(Unselectable) as caught:
        planned(select=(selector,))
    assert told in str(caught.value)


def test_of_equal_stages_either_name_selects_both() -> None:
    specs = (made.puzzles(), made.puzzles(name="again"))
    assert due(planned(*specs, select=("again",))) == {"puzzles"}


def test_force_makes_a_stage_again_and_what_stands_on_it(state: Path) -> None:
    plan = planned(state=state, force=("cold_start",))
    assert {s.name: (s.action, s.reasons) for s in plan.due} == {
        "cold_start": ("redo", ("forced",)),
        "reasoner": ("redo", ("parent_changed",)),
        "after": ("redo", ("parent_changed",)),
    }
    with pytest.raises(Unselectable, match="--force coldstart"):
        planned(force=("coldstart",))
