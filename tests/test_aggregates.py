"""How an eval counts: what a recipe may say, what a benchmark says of itself, and that the plan and a diff know."""

from __future__ import annotations

from pathlib import Path

import pytest

from omrlang.compiler import load
from omrlang.diff import Diff, Side
from omrlang.diff import diff as diff_of_sides
from omrlang.plan import Plan
from omrlang.planning import make_plan
from omrlang.schema import Eval
from omrlang.types import Worst

RECIPE = """omr 1

use std.formats

model asked = hf("a/b", revision = "r")

benchmark varied from jsonl("varied.jsonl") {{
  columns {{
    question = question
    answer   = answer
    variant  = problem
  }}
  {varied}
}}

benchmark plain from jsonl("plain.jsonl") {{
  columns {{
    question = question
    answer   = answer
  }}
  {plain}
}}

eval after from [varied, plain] with asked {{
  prompt      = formats.think_answer
  temperature = 1
  max_tokens  = 64
  n           = 4
  {after}
}}
"""


def write(folder: Path, **lines: str) -> Path:
    path = folder / "r.omr"
    path.write_text(RECIPE.format(**({"varied": "", "plain": "", "after": ""} | lines)))
    return path


def planned(folder: Path, **lines: str) -> Plan:
    path = write(folder, **lines)
    recipe, found = load(path)
    assert recipe is not None, [item.message for item in found]
    return make_plan(recipe, folder / "state", path)


def evaluation(plan: Plan) -> Eval:
    spec = plan.stages[-1].spec
    assert isinstance(spec, Eval)
    return spec


def ways(plan: Plan) -> dict[str, object]:
    spec = evaluation(plan)
    return {name: spec.aggregate_of(name) for name in spec.rows}


def diff(a: Plan, b: Plan) -> Diff:
    return diff_of_sides(Side("a", a), Side("b", b))


WORST = "aggregate = worst(by = variant)"


def test_the_mean_is_the_default_and_a_benchmark_says_its_own(tmp_path: Path) -> None:
    assert ways(planned(tmp_path)) == {"varied": "mean", "plain": "mean"}
    own = planned(tmp_path, varied=WORST)
    assert ways(own) == {"varied": Worst(by="variant"), "plain": "mean"}
    assert evaluation(own).own_aggregates.keys() == {"varied"}


def test_the_eval_goes_before_the_benchmark(tmp_path: Path) -> None:
    given = planned(tmp_path, varied=WORST, after="aggregate = mean")
    assert ways(given) == {"varied": "mean", "plain": "mean"}
    assert evaluation(given).own_aggregates == {}
    assert set(ways(planned(tmp_path, after="aggregate = majority")).values()) == {"majority"}


def test_a_changed_way_of_counting_is_one_factor(tmp_path: Path) -> None:
    mean, own = planned(tmp_path), planned(tmp_path, varied=WORST)
    found = diff(mean, own)
    assert [(f.path, f.cls, f.old, f.new) for f in found.factors] == [
        ("aggregate", "rows", "mean", "worst")
    ]
    assert (found.factors[0].stages, found.redo) == (("varied",), ("varied", "after"))
    said = planned(tmp_path, after="aggregate = majority")
    assert [(f.path, f.stages) for f in diff(mean, said).factors] == [("aggregate", ("after",))]
    # A benchmark that says what holds anyway changes nothing that is run.
    same = diff(mean, planned(tmp_path, plain="aggregate = mean"))
    assert (same.factors, same.redo) == ((), ())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"plain": WORST}, "`worst` looks at `variant`, which the rows of `plain` lack"),
        ({"after": WORST}, "`worst` looks at `variant`, which the rows of `plain` lack"),
        (
            {"plain": 'aggregate = chains(by = variant, whole = "multi")'},
            "`chains` looks at `extra.step`, which the rows of `plain` lack",
        ),
        ({"plain": "aggregate = chains(by = variant)"}, "`chains(…)` lacks `whole`"),
        ({"after": "aggregate = worst"}, "`aggregate` has no choice `worst`"),
        ({"after": "aggregate = worst()"}, "`worst(…)` lacks `by`"),
        ({"after": "aggregate = worst(by = source)"}, "`by` has no choice `source`"),
        ({"after": "aggregate = best(by = variant)"}, "`aggregate` has no choice `best(…)`"),
        ({"after": "aggregate = 3"}, "`aggregate` has no choice `3`"),
    ],
)
def test_what_cannot_be_counted(tmp_path: Path, lines: dict[str, str], message: str) -> None:
    recipe, found = load(write(tmp_path, **lines))
    assert recipe is None
    assert message in [item.message for item in found]
