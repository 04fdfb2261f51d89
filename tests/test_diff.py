"""Diffs: laws, factors, what moves along, what is redone, views."""

from __future__ import annotations

from pathlib import Path

import made_recipes as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omrlang import types as t
from omrlang.cli.diff_view.text import diff_text
from omrlang.diff import Diff, Side, study
from omrlang.diff import diff as diff_of_sides
from omrlang.plan import Plan
from omrlang.planning import make_plan
from omrlang.schema import Spec

STATE = Path("nowhere")


def planned(*specs: Spec, name: str = "a.omr") -> Plan:
    return make_plan(made.recipe(*(specs or made.quickstart()), path=Path(name)), STATE, Path(name))


def diff(a: Plan, b: Plan) -> Diff:
    return diff_of_sides(Side(a.recipe, a), Side(b.recipe, b))


def edited(**by: dict[str, object]) -> tuple[Spec, ...]:
    return tuple(spec.model_copy(update=by.get(spec.name, {})) for spec in made.quickstart())


def against(**by: dict[str, object]) -> Diff:
    return diff(planned(), planned(*edited(**by), name="b.omr"))


def factors(found: Diff) -> list[tuple[str, str, str, str]]:
    return [(factor.path, factor.cls, factor.old, factor.new) for factor in found.factors]


# ---- laws ------------------------------------------------------------------------------------------------------------

EDITS: dict[str, dict[str, object]] = {
    "traces": {"n": 4},
    "accepted": {"at_most": None},
    "cold_start": {"epochs": 3.0},
    "reasoner": {"group": 4},
    "after": {"temperature": 0.5},
    "puzzles": {"take": 100},
}


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(sorted(EDITS))))
def test_a_plan_does_not_differ_from_itself(names: set[str]) -> None:
    plan = planned(*edited(**{name: EDITS[name] for name in names}))
    found = diff(plan, plan)
    assert found.is_empty
    assert (found.verdict.text, found.redo, found.price.after.tokens.mid) == ("no change", (), 0)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(sorted(EDITS)), min_size=1))
def test_every_edit_is_a_factor_and_its_stage_and_children_are_redone(names: set[str]) -> None:
    found = against(**{name: EDITS[name] for name in names})
    assert len(found.factors) == len(names)
    changed = {stage.name for stage in found.stages if stage.effect == "changed"}
    assert changed == names
    a, b = planned(), planned(*edited(**{name: EDITS[name] for name in names}))
    moved = {
        stage.name
        for stage in b.stages
        if stage.fingerprint not in {other.fingerprint for other in a.stages}
    }
    assert set(found.redo) == moved


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(sorted(EDITS)), min_size=1))
def test_the_other_way_round_has_the_same_factors_turned(names: set[str]) -> None:
    a, b = planned(), planned(*edited(**{name: EDITS[name] for name in names}))
    turned = [(path, cls, new, old) for path, cls, old, new in factors(diff(b, a))]
    assert sorted(turned) == sorted(factors(diff(a, b)))


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(sorted(EDITS)), min_size=1))
def test_the_other_way_round_the_same_moves_and_turned(names: set[str]) -> None:
    a, b = planned(), planned(*edited(**{name: EDITS[name] for name in names}))
    there, back = diff(a, b), diff(b, a)
    assert {(m.stage, m.what, m.old_text, m.new_text, m.matters) for m in there.moves} == {
        (m.stage, m.what, m.new_text, m.old_text, m.matters) for m in back.moves
    }
    assert there.verdict.kind == back.verdict.kind


def test_json_round_trips() -> None:
    found = against(traces={"n": 4})
    assert Diff.model_validate_json(found.model_dump_json()) == found


# ---- factors ---------------------------------------------------------------------------------------------------------


def test_speed_and_names_are_no_factors() -> None:
    found = against(cold_start={"recompute": True}, puzzles={"licence": "MIT"})
    assert (found.factors, found.redo) == ((), ())
    assert {(factor.path, factor.cls) for factor in found.others} == {
        ("recompute", "speed"),
        ("licence", "meta"),
    }
    assert found.verdict.text == "no change in meaning: 2 settings that decide no result"


def test_a_renamed_stage_is_no_factor() -> None:
    specs = list(made.quickstart())
    specs[3] = specs[3].model_copy(update={"name": "drawn"})
    specs[4] = specs[4].model_copy(update={"rows": "drawn"})
    found = diff(planned(), planned(*specs))
    assert (found.factors, found.others, found.redo) == ((), (), ())
    assert [(stage.name, stage.old_name) for stage in found.stages if stage.old_name] == [
        ("drawn", "traces")
    ]
    assert found.verdict.text == "no change in meaning: 1 stage renamed"


def test_a_renamed_and_changed_parent_is_followed() -> None:
    specs = list(edited(traces={"n": 4}))
    specs[2] = specs[2].model_copy(update={"name": "asked"})
    specs = [
        spec.model_copy(update={"rows": "asked"})
        if getattr(spec, "rows", None) == "questions"
        else spec
        for spec in specs
    ]
    assert factors(diff(planned(), planned(*specs))) == [("n", "rows", "2", "4")]


def test_a_stage_that_was_renamed_and_changed_is_found_through_what_uses_it() -> None:
    specs = list(edited(cold_start={"epochs": 3.0, "name": "start"}))
    specs = [
        spec.model_copy(update={"model": t.TrainedModel(stage="start")})
        if getattr(getattr(spec, "model", None), "stage", None) == "cold_start"
        else spec
        for spec in specs
    ]
    a, b = planned(), planned(*specs)
    for found, factor in ((diff(a, b), ("2", "3")), (diff(b, a), ("3", "2"))):
        assert [(item.path, item.old, item.new) for item in found.factors] == [("epochs", *factor)]
        assert {"added", "removed"} & {stage.effect for stage in found.stages} == set()


def test_steps_for_epochs_are_one_factor_either_way_round() -> None:
    found = against(cold_start={"epochs": None, "steps": 50})
    assert factors(found)[0] == ("steps", "weights", "2 epochs", "50")
    assert len(found.acting) == 1


def test_one_recipe_twice_in_a_study_keeps_its_columns_apart() -> None:
    a, b = planned(), planned(*edited(traces={"n": 4}), name="b.omr")
    made_of = study([Side("a.omr", a), Side("b.omr", b), Side("b.omr", b)])
    assert [column.name for column in made_of.columns] == ["a.omr", "b.omr", "b.omr (2)"]
    assert sorted(made_of.order) == ["a.omr", "b.omr", "b.omr (2)"]


def test_a_changed_branch_is_one_factor_with_what_belongs_to_it() -> None:
    found = against(reasoner={"algorithm": t.Dapo(clip=(0.2, 0.28))})
    assert factors(found) == [("algorithm", "weights", "gspo", "dapo")]
    assert found.clean
    two = against(reasoner={"algorithm": t.Dapo(clip=(0.2, 0.28), kl=0.1)})
    assert [path for path, *_ in factors(two)] == ["algorithm", "algorithm.kl"]
    assert not two.clean


def test_another_model_is_one_factor_and_an_edited_one_shows_the_edit() -> None:
    big = t.Model(name="big", source=t.Fresh(family="qwen2", layers=2, hidden=64, heads=2))
    assert factors(against(cold_start={"model": big})) == [("with", "weights", "tiny", "big")]
    wide = made.TINY.model_copy(
        update={"source": made.TINY.source.model_copy(update={"hidden": 256})}
    )
    assert factors(against(cold_start={"model": wide})) == [
        ("with.hidden", "weights", "128", "256")
    ]


def test_a_trained_model_for_a_declared_one_is_one_factor() -> None:
    assert factors(against(reasoner={"model": made.TINY})) == [
        ("with", "weights", "cold_start", "tiny")
    ]


def test_another_prompt_is_one_factor_over_its_stages() -> None:
    prompt = t.Prompt(name="formats.other", system="Think.", thinking=None)
    found = against(traces={"prompt": prompt}, reasoner={"prompt": prompt})
    assert [(factor.path, factor.old, factor.new, factor.stages) for factor in found.factors] == [
        ("prompt", "formats.think_answer_short", "formats.other", ("traces", "reasoner")),
    ]


def test_a_clip_that_cannot_act_is_no_effect_and_still_redone() -> None:
    found = against(reasoner={"algorithm": t.Gspo(clip=(0.1, 0.2))})
    assert found.verdict.text.startswith("no effect: reasoner.algorithm.clip cannot act")
    assert found.redo == ("reasoner", "after")
    small = t.Amount(value=8, unit="prompts")
    a = planned(*edited(reasoner={"minibatch": small}))
    b = planned(*edited(reasoner={"minibatch": small, "algorithm": t.Gspo(clip=(0.1, 0.2))}))
    assert [factor.role for factor in diff(a, b).factors] == ["acts"]


def test_a_dual_clip_that_cannot_act_is_no_effect() -> None:
    clip = (3e-4, 4e-4)
    found = against(reasoner={"algorithm": t.Gspo(clip=clip, dual_clip=3.0)})
    assert found.verdict.text.startswith("no effect: reasoner.algorithm.dual_clip cannot act")
    small = t.Amount(value=8, unit="prompts")
    a = planned(*edited(reasoner={"minibatch": small}))
    b = planned(
        *edited(reasoner={"minibatch": small, "algorithm": t.Gspo(clip=clip, dual_clip=3.0)})
    )
    assert [factor.role for factor in diff(a, b).factors] == ["acts"]


def test_stages_added_and_removed_are_no_factors() -> None:
    found = diff(planned(), planned(*made.quickstart()[:-1]))
    assert (found.factors, found.verdict.text) == ((), "no factor; 1 stage removed")
    found = diff(planned(*made.quickstart()[:-1]), planned())
    assert (found.redo, found.verdict.text) == (("after",), "no factor; 1 stage added")


def test_the_order_of_parts_is_a_factor() -> None:
    parts = (t.MixPart(rows="puzzles", amount=t.All()), t.MixPart(rows="held_out", amount=t.All()))
    a, b = (planned(*edited(questions={"parts": order})) for order in (parts, parts[::-1]))
    assert factors(diff(a, b)) == [
        ("from (order)", "rows", "puzzles, held_out", "held_out, puzzles")
    ]


def test_a_choice_that_comes_or_goes_is_one_factor_with_its_arguments() -> None:
    easy_first = t.Descending(by=made.expression(t.Col(name="num_tokens"), "num_tokens"))
    found = against(reasoner={"order": easy_first})
    assert factors(found) == [("order", "weights", "none", "descending")]
    back = diff(planned(*edited(reasoner={"order": easy_first})), planned())
    assert factors(back) == [("order", "weights", "descending", "none")]


def test_a_machine_of_the_same_name_that_is_set_up_otherwise() -> None:
    first, second = (t.Hardware(name="m", count=1, per_node=size) for size in (1, 2))
    a, b = (planned(*edited(reasoner={"hardware": machine})) for machine in (first, second))
    found = diff(a, b)
    assert [factor.path for factor in found.others] == ["on"]
    assert "reasoner.on 1 processes, set up otherwise" in " ".join(diff_text(found, 100).split())


# ---- what moves along, what it costs -----------------------------------------------------------------------------------


def test_fixed_epochs_over_more_rows_are_more_steps() -> None:
    found = against(traces={"n": 4})
    assert [(move.stage, move.what) for move in found.confounds] == [("cold_start", "steps")]
    assert not found.clean


def test_fixed_steps_over_fewer_rows_are_more_epochs_with_the_setting_that_holds_it() -> None:
    a = planned(*made.cluster())
    b = planned(
        *(
            spec.model_copy(update={"take": 437_000}) if spec.name == "traces" else spec
            for spec in made.cluster()
        )
    )
    moves = [(move.what, move.hold and move.hold.text) for move in diff(a, b).confounds]
    assert moves == [("epochs", "cold_start.steps = 2_150")]


def test_a_dropped_source_shifts_every_share() -> None:
    parts = (t.MixPart(rows="puzzles", amount=t.All()), t.MixPart(rows="held_out", amount=t.All()))
    third = made.puzzles(name="third", place=t.Synthetic(name="shapes", n=1000, seed=3))
    mixed = [*edited(questions={"parts": (*parts, t.MixPart(rows="third", amount=t.All()))})]
    less = [*edited(questions={"parts": parts})]
    found = diff(planned(third, *mixed), planned(third, *less))
    assert "share of puzzles" in {move.what for move in found.moves}
    assert [path for path, *_ in factors(found)] == ["from.third"]


def test_one_clean_factor_is_called_clean() -> None:
    found = against(reasoner={"group": 16})
    assert (found.clean, found.confounds) == (True, ())
    assert found.verdict.text == "clean: 1 factor (reasoner.group 8 -> 16); 2 stages to redo"


def test_b_after_a_pays_for_what_is_new() -> None:
    found = against(traces={"n": 4})
    assert (
        found.price.a.rows_sampled.mid,
        found.price.b.rows_sampled.mid,
        found.price.after.rows_sampled.mid,
    ) == (6000, 12000, 6000)
    assert against(traces={"n": 1}).price.after.rows_sampled.mid == 0


# ---- views -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal_and_the_verdict_is_first_and_last(width: int) -> None:
    found = against(
        traces={"n": 4},
        reasoner={"algorithm": t.Dapo(clip=(0.2, 0.28))},
        cold_start={"recompute": True},
    )
    lines = diff_text(found, width).splitlines()
    assert max(len(line) for line in lines) <= width
    first, last = lines[: lines.index("")], lines[len(lines) - lines[::-1].index("") :]
    assert first == last
