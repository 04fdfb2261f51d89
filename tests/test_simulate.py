"""What a sum of ranges comes to in half and in nine tenths of the cases; the budget that is held against it."""

from __future__ import annotations

from pathlib import Path

import made_recipes as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omrlang.cli.plan_view.verdict import verdict
from omrlang.estimate.ranges import added, between, derive, dollars, exact, product
from omrlang.estimate.simulate import percentile
from omrlang.hir import Budget, Recipe
from omrlang.plan import Estimate, Plan
from omrlang.planning import make_plan


def guess(name: str, lo: float, mid: float, hi: float) -> Estimate:
    return between(lo, mid, hi, "s", "assumed", name)


@given(st.tuples(*[st.floats(0, 1e6)] * 3).map(sorted))
def test_an_input_lies_half_the_time_below_its_middle(ends: list[float]) -> None:
    lo, mid, hi = ends
    low, half, most = percentile(guess("a", lo, mid, hi), 0.0, 0.5, 1.0)
    assert lo <= low <= half <= most <= hi
    assert half == pytest.approx(mid, abs=0.01 * (hi - lo) + 1e-9)


def test_what_is_shared_moves_together_and_what_is_not_evens_out() -> None:
    shared = added("s", "sum", {f"s{i}": guess("the same assumption", 0, 10, 20) for i in range(8)})
    apart = added("s", "sum", {f"s{i}": guess(f"assumption {i}", 0, 10, 20) for i in range(8)})
    assert percentile(shared, 0.9)[0] == pytest.approx(8 * 18, rel=0.01)
    assert 8 * 10 < percentile(apart, 0.9)[0] < 8 * 14


def test_an_input_of_two_stages_is_one_draw() -> None:
    """Rows that are declared: half as many in one stage and half in another is what all of them would be."""
    rows = between(0, 10, 20, "rows", "declared", "`assume { rows }`")
    half = exact(0.5, "", "formula", "half")
    parts = {name: derive("rows", "part", product, rows=rows, share=half) for name in "ab"}
    assert percentile(added("rows", "sum", parts), 0.9) == pytest.approx(
        percentile(rows, 0.9), rel=1e-9
    )


def test_the_same_plan_has_the_same_percentiles() -> None:
    costs = planned().totals.usd
    assert percentile(costs, 0.5, 0.9) == percentile(planned().totals.usd, 0.5, 0.9)
    assert percentile(costs, 0.5, seed=1) != percentile(costs, 0.5, seed=2)


def test_a_chain_of_ten_thousand_has_no_depth() -> None:
    number = guess("start", 1, 2, 3)
    for _ in range(10_000):
        number = derive("s", "the same", product, it=number)
    assert percentile(number, 0.5)[0] == pytest.approx(2, abs=0.01)


def test_of_the_unknown_there_is_none() -> None:
    nothing = Estimate(lo=None, mid=None, hi=None, unit="USD", origin="unknown", formula="no price")
    assert percentile(dollars(nothing), 0.5, 0.9) == ()


# ---- the budget ------------------------------------------------------------------------------------------------------


def planned(**limits: float) -> Plan:
    recipe = made.recipe(*made.cluster())
    budget = Budget(**limits) if limits else None
    with_budget = Recipe(recipe.path, recipe.folder, 7, recipe.stages, budget=budget)
    return make_plan(with_budget, Path("nowhere"), Path("made.omr"))


def test_the_percentiles_lie_within_the_sum_of_the_ends() -> None:
    plan = planned(p90_usd=1e9)
    usd = plan.totals.usd
    assert usd.lo is not None
    assert usd.hi is not None
    assert plan.usd_p50 is not None
    assert plan.usd_p90 is not None
    assert usd.lo < plan.usd_p50 < plan.usd_p90 < usd.hi
    assert plan.exit.code == 0
    assert "within the budget" in verdict(plan)


def test_a_limit_is_held_against_its_percentile_and_not_the_worst_case() -> None:
    plan = planned(p90_usd=1e9)
    worst = plan.totals.usd.hi
    assert worst is not None
    assert plan.usd_p90 is not None
    p90 = float(plan.usd_p90)
    assert planned(p90_usd=(p90 + float(worst)) / 2).exit.code == 0
    over = planned(p90_usd=p90 - 1)
    assert (over.exit.code, over.exit.reason) == (3, "over_budget_p90")
    assert f"p90 ${p90:,.0f} is OVER BUDGET ${p90 - 1:,.0f}" in verdict(over)
    assert planned(p50_usd=1.0).exit.reason == "over_budget_p50"


def test_without_a_budget_nothing_is_drawn() -> None:
    assert (planned().usd_p50, planned().usd_p90) == (None, None)
