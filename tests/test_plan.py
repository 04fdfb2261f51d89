"""Plans: actions and reasons from the state, estimates with their origins, views, exit codes, what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import made_recipes as made
import pytest
from earlier_runs import finished, planned, write_index
from hypothesis import given, settings
from hypothesis import strategies as st

from omrlang import types as t
from omrlang.cli.plan_text import plan_text, summary, verdict
from omrlang.cli.plans import with_exit
from omrlang.compiler import load
from omrlang.hir import Budget, Recipe
from omrlang.plan import Plan
from omrlang.planning import make_plan
from omrlang.schema import Spec
from omrlang.state import read_index

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "vllm",
    "datasets",
    "pyarrow",
    "ray",
    "numpy",
}


def actions(plan: Plan) -> dict[str, str]:
    return {stage.name: stage.action for stage in plan.stages}


# ---- actions and reasons ---------------------------------------------------------------------------------------------


def test_without_state_everything_is_new() -> None:
    plan = planned()
    assert set(actions(plan).values()) == {"new"}
    assert {stage.reasons for stage in plan.stages} == {("new",)}


def test_after_a_run_everything_is_cached(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    again = planned(state=tmp_path)
    assert set(actions(again).values()) == {"cached"}
    assert verdict(again) == "Nothing to run: all 9 stages are cached."
    assert again.totals.seconds.mid == 0


def edited(**by: dict[str, object]) -> tuple[Spec, ...]:
    return tuple(spec.model_copy(update=by.get(spec.name, {})) for spec in made.quickstart())


def test_a_changed_setting_and_its_children_are_redone_with_reasons(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    again = planned(*edited(cold_start={"epochs": 3.0}), state=tmp_path)
    changed = {name for name, action in actions(again).items() if action != "cached"}
    assert changed == {"cold_start", "reasoner", "after"}
    cold_start, reasoner = again.stage("cold_start"), again.stage("reasoner")
    assert (cold_start.reasons, cold_start.reason_text) == (("param_changed",), "epochs 2 -> 3")
    assert [(change.path, change.cls, change.old, change.new) for change in cold_start.changes] == [
        ("epochs", "weights", "2", "3")
    ]
    assert (reasoner.reasons, reasoner.reason_text) == (("parent_changed",), "cold_start changed")


def test_more_samples_of_the_same_keep_what_was_drawn(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    traces = planned(*edited(traces={"n": 4}), state=tmp_path).stage("traces")
    assert (traces.action, traces.reasons) == ("partial", ("param_changed", "partial_cache"))


def test_speed_and_notes_redo_nothing(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    again = planned(
        *edited(
            cold_start={"recompute": True}, puzzles={"licence": "MIT"}, traces={"engine": t.Vllm()}
        ),
        state=tmp_path,
    )
    assert set(actions(again).values()) == {"cached"}


@pytest.mark.parametrize(
    ("record", "action", "reasons"),
    [
        ({"status": "partial", "num_shards": 3, "num_rows": 30}, "partial", ("partial_cache",)),
        ({"status": "partial", "steps_done": 20}, "partial", ("partial_cache",)),
        ({"status": "partial"}, "new", ("cache_missing",)),
        ({"status": "failed"}, "new", ("previous_run_failed",)),
        (
            {"status": "failed", "num_shards": 1},
            "partial",
            ("previous_run_failed", "partial_cache"),
        ),
        ({"status": "done", "files_ok": False}, "redo", ("cache_corrupt",)),
    ],
)
def test_what_a_run_left(
    tmp_path: Path, record: dict[str, object], action: str, reasons: tuple[str, ...]
) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, {"traces": record})
    traces = planned(state=tmp_path).stage("traces")
    assert (traces.action, traces.reasons) == (action, reasons)


def test_a_changed_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "?"}\n')
    source = made.puzzles(place=t.Jsonl(path=str(tmp_path / "a.jsonl")))
    plan = planned(source, state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    (tmp_path / "a.jsonl").write_text('{"question": "!"}\n')
    puzzles = planned(source, state=tmp_path).stage("puzzles")
    assert (puzzles.action, puzzles.reasons) == ("redo", ("source_revision_changed",))


def test_stages_that_are_gone_are_named(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    again = planned(*made.quickstart()[:-1], state=tmp_path)
    assert [(gone.name, gone.reasons) for gone in again.removed] == [("after", ("removed",))]
    assert "  - eval after  no longer in the recipe" in plan_text(again, 100)


def test_two_names_for_one_thing_are_made_once() -> None:
    specs = (made.puzzles(), made.puzzles(name="again"))
    assert actions(planned(*specs)) == {"puzzles": "new", "again": "cached"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"stages": 3, "names": [], "previous": {"x": 1}}', "\x00"]
)
def test_a_broken_index_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    plan = planned(state=tmp_path)
    assert set(actions(plan).values()) == {"new"}
    assert [item.code for item in plan.diagnostics] == ([] if text.startswith('{"') else ["W202"])


def test_unknown_fields_of_the_index_are_passed_over(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan, from_the_future={"x": 1}))
    assert len(read_index(tmp_path).stages) == 9


# ---- estimates -------------------------------------------------------------------------------------------------------


def mids(plan: Plan) -> dict[str, float | None]:
    return {
        stage.name: stage.costs.rows_out.mid for stage in plan.stages if stage.costs is not None
    }


def test_rows_go_through_samples_filters_and_caps() -> None:
    rows = mids(planned())
    assert rows["traces"] == 6000
    assert rows["accepted"] == pytest.approx(3000 * (1 - 0.3**2))
    assert rows["reasoner"] == 40 * 32 * 8
    accepted = planned().stage("accepted").costs
    assert accepted is not None
    assert accepted.rows_out.origin == "declared"
    rate = next(item for item in accepted.rows_out.inputs if item.name == "rate")
    assert (rate.mid, rate.origin) == (0.7, "declared")


def test_measured_rows_replace_computed_ones_and_a_rate_carries_over(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    records = {
        **finished(plan),
        "accepted": {"status": "done", "num_rows": 1500, "num_dropped": 4500, "seconds": 3.0},
    }
    write_index(tmp_path, plan, records)
    same = planned(state=tmp_path).stage("accepted").costs
    assert same is not None
    assert (same.rows_out.mid, same.rows_out.origin, same.seconds.mid) == (1500, "measured", 3.0)
    grown = (
        planned(
            *edited(puzzles={"place": t.Synthetic(name="shapes", n=6000, seed=11)}), state=tmp_path
        )
        .stage("accepted")
        .costs
    )
    assert grown is not None
    assert (grown.rows_out.mid, grown.rows_out.origin) == (3000, "calibrated")


def test_a_like_stage_gives_the_speed(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(
        tmp_path,
        plan,
        {**finished(plan), "cold_start": {"status": "done", "tokens": 100_000, "seconds": 50.0}},
    )
    costs = planned(*edited(cold_start={"epochs": 4.0}), state=tmp_path).stage("cold_start").costs
    assert costs is not None
    assert costs.seconds.mid == pytest.approx((costs.tokens.mid or 0) / 2000)
    assert costs.seconds.formula == "tokens / tokens a second of a like stage"


def test_the_published_sft_is_planned_as_published() -> None:
    """4,300 steps x 32 packs x 61,440 tokens; about 30 hours on 32 A800 at 35% (reference, C4)."""
    plan = planned(*made.cluster())
    costs = plan.stage("cold_start").costs
    assert costs is not None
    assert costs.tokens.mid == 4300 * 32 * 61_440
    assert costs.seconds.lo is not None
    assert costs.seconds.hi is not None
    assert costs.seconds.lo / 3600 < 30 < costs.seconds.hi / 3600
    assert costs.memory is not None
    assert costs.memory.verdict == "fits"
    assert any("fused = false" in flip for flip in costs.memory.flips)
    assert costs.usd.mid == (Decimal(str(costs.gpu_hours.mid)) * Decimal("1.6")).quantize(
        Decimal("0.01")
    )


def test_memory_that_cannot_fit_ends_in_3() -> None:
    specs = made.cluster()
    unfused = specs[2].model_copy(update={"loss": t.CrossEntropy(fused=False), "recompute": False})
    plan = planned(*specs[:2], unfused)
    memory = plan.stages[2].costs.memory if plan.stages[2].costs else None
    assert memory is not None
    assert memory.verdict == "does not fit"
    assert plan.exit.code == 3
    assert "DOES NOT FIT" in verdict(plan)


def test_unknown_is_not_zero_and_is_counted() -> None:
    bare = made.QWEN.model_copy(update={"shape": None})
    plan = planned(
        *(
            spec.model_copy(update={"model": bare}) if spec.name == "cold_start" else spec
            for spec in made.cluster()
        )
    )
    costs = plan.stage("cold_start").costs
    assert costs is not None
    assert (costs.seconds.mid, costs.usd.mid, costs.seconds.origin) == (None, None, "unknown")
    assert plan.totals.not_estimated == 2
    assert not plan.complete
    assert "not fully estimated" in verdict(plan)
    assert "the model's shape is not declared" in plan_text(plan, 100)


def test_every_range_is_in_order() -> None:
    for plan in (planned(), planned(*made.cluster())):
        for stage in plan.stages:
            assert stage.costs is not None
            found = [
                stage.costs.rows_out,
                stage.costs.tokens,
                stage.costs.seconds,
                *stage.costs.extra.values(),
            ]
            found += list(stage.costs.memory.parts.values()) if stage.costs.memory else []
            for item in found:
                assert item.mid is None or (item.lo or 0) <= item.mid <= (item.hi or 0), (
                    stage.name,
                    item,
                )
                assert item.origin != "unknown" or item.mid is None


def test_missing_file_is_a_warning_and_rows_may_be_declared(tmp_path: Path) -> None:
    source = made.puzzles(place=t.Jsonl(path="no.jsonl"))
    plan = planned(source)
    assert [(item.code, item.message) for item in plan.diagnostics] == [
        ("W201", "source `puzzles`: no.jsonl does not exist")
    ]
    assert mids(plan) == {"puzzles": None}
    assert mids(planned(source.model_copy(update={"rows": 12}))) == {"puzzles": 12}


def test_the_budget_is_a_limit() -> None:
    recipe = made.recipe(*made.cluster())
    over = Recipe(recipe.path, recipe.folder, 7, recipe.stages, budget=Budget(p50_usd=100.0))
    plan = make_plan(over, Path("nowhere"), Path("made.omr"))
    assert (plan.exit.code, plan.exit.reason) == (3, "over_budget_p50")
    assert "is OVER BUDGET $100" in verdict(plan)
    assert "--accept-limits" in plan_text(plan, 100)


# ---- views -----------------------------------------------------------------------------------------------------------


def test_json_is_the_plan(tmp_path: Path) -> None:
    for specs in (made.quickstart(), made.cluster()):
        plan = planned(*specs, state=tmp_path)
        text = plan.model_dump_json()
        assert Plan.model_validate_json(text) == plan
    assert isinstance(json.loads(text)["totals"]["usd"]["mid"], str)


@settings(max_examples=20, deadline=None)
@given(st.integers(min_value=60, max_value=130))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for specs in (made.quickstart(), made.cluster()):
        lines = plan_text(planned(*specs), width).splitlines()
        assert max(len(line) for line in lines) <= width
        assert all(line == line.rstrip() for line in lines)


def test_the_verdict_is_first_and_last() -> None:
    plan = planned()
    lines = plan_text(plan, 100).splitlines()
    assert lines[0] == lines[-2] == summary(plan).splitlines()[0]
    assert lines[-1] == "Next: omr run made.omr"


def test_exit_2_only_when_asked_for() -> None:
    assert planned().exit.code == 0
    assert with_exit(planned(), True).exit.code == 2


def test_the_shipped_recipes_plan(tmp_path: Path) -> None:
    for path in sorted((ROOT / "pipelines").glob("*.omr")):
        recipe, diagnostics = load(path)
        assert recipe is not None, [item.message for item in diagnostics]
        plan = make_plan(recipe, tmp_path, path)
        assert len(plan.stages) == len(recipe.stages)
        assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_plan_and_diff_import_nothing_heavy() -> None:
    program = """
import sys
import time
from omrlang.cli.plan import run
from omrlang.cli import plan_text, diff, diff_view
from omrlang.compiler import load
from omrlang.planning import make_plan
from pathlib import Path
recipe, _ = load(Path("pipelines/quickstart.omr"))
plan = make_plan(recipe, Path("nowhere"), Path("x.omr"))
plan_text.plan_text(plan, 100)
import omrlang.diff
print(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.split())


def test_parquet_rows_are_counted_in_the_footer(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    file = tmp_path / "a.parquet"
    duckdb.sql("select range as question from range(1234)").write_parquet(str(file))
    assert mids(planned(made.puzzles(place=t.Parquet(path=str(file))))) == {"puzzles": 1234}


def test_cost_of_planning_grows_with_the_stages_and_not_with_their_square() -> None:
    def seconds(num: int) -> float:
        specs = [made.puzzles(), *(made.questions(name=f"mix_{n}") for n in range(num))]
        start = time.process_time()
        planned(*specs)
        return time.process_time() - start

    seconds(50)
    assert seconds(2000) < 40 * max(seconds(200), 0.02)
