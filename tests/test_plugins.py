"""Verifiers written in Python: which code counts, what they may do to their process, what the plan says of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verify_parts import PROMPT, condition, either, row, table, work_order

from omr_runtime.errors import Resumable, RunError
from omr_runtime.stages import filter as filter_stage
from omr_runtime.verify.cascade import Cascade
from omr_runtime.verify.interpret import UNKNOWN
from omr_runtime.verify.math import MathPool
from omr_runtime.verify.plugin import Plugin
from omr_runtime.verify.workers import Limits
from omrlang.cli.plan_text import plan_text
from omrlang.compiler import load
from omrlang.expressions import row_expression
from omrlang.plan import Plan
from omrlang.planning import make_plan
from omrlang.plugins import Unreadable, read_code
from omrlang.render import render
from omrlang.schema import Filter
from omrlang.types import Binary, Call, Lit, Python, Verifier

QUICK = Limits(cpu_s=0.3, wall_s=3.0)
CODE = """
import os, sys, time

def score(row):
    do = row["final_answer"]
    if do == "spin":
        while True:
            pass
    if do == "sleep":
        time.sleep(60)
    if do == "raise":
        raise ValueError("no such thing")
    if do == "exit":
        os._exit(3)
    if do == "quit":
        sys.exit(3)
    if do == "read":
        return sys.stdin.read() == ""
    if do == "deep":
        return score(row)
    if do == "print":
        print('{"value": false, "reason": null}')
        sys.stdout.flush()
    if do == "text":
        return "yes"
    if do == "none":
        return None
    if do == "half":
        return 0.5
    if do == "extra":
        return row["extra"] == {"level": 3} and row["question"] == "How many?"
    return True
"""


def verifier(folder: Path, entry: str = "rewards:score", **more: Any) -> Verifier:
    code = read_code(folder, entry)
    files = tuple(map(str, code.files))
    return Verifier(
        name="mine", source=Python(entry=entry), version=1, files=files, code=code.digest, **more
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rewards.py").write_text(CODE)
    return tmp_path


def test_whatever_a_function_does_the_next_row_is_answered(folder: Path) -> None:
    plugin = Plugin(verifier(folder), folder, limits=QUICK)
    does = ["spin", "raise", "exit", "quit", "deep", "text", "none", "half", "sleep"]
    try:
        found = {do: plugin.ask([row("a", do, final_answer=do)])[0] for do in does}
        after = plugin.ask([row("a", do, final_answer=do) for do in ("print", "read", "fine")])
    finally:
        plugin.close()
    assert {do: reply.reason for do, reply in found.items()} == {
        "spin": "timeout",
        "sleep": "timeout",
        "raise": "ValueError: no such thing",
        "exit": "its process ended with code 3",
        "quit": "SystemExit: 3",
        "deep": "too deep",
        "text": "it returned 'yes', which is no truth value",
        "none": "it returned None, which is no truth value",
        "half": "it returned 0.5, which is no truth value",
    }
    assert all(reply.value is None for reply in found.values())
    assert [reply.value for reply in after] == [True, True, True]


def test_a_number_where_the_recipe_says_so_and_the_row_as_a_plain_dict(folder: Path) -> None:
    plugin = Plugin(verifier(folder, gives="number"), folder, limits=QUICK)
    rows = [row("a", do, final_answer=do, extra='{"level": 3}') for do in ("half", "extra", "text")]
    try:
        found = plugin.ask(rows)
    finally:
        plugin.close()
    assert [reply.value for reply in found] == [0.5, True, None]
    assert found[2].reason == "it returned 'yes', which is no finite number"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('not today')\ndef score(row): ...", "not today"),
        ("import not_there\ndef score(row): ...", "ModuleNotFoundError"),
        ("score = 3", "no function"),
        ("import os\nos._exit(7)\ndef score(row): ...", "code 7"),
    ],
)
def test_code_that_does_not_start_stops_the_run_before_it_starts(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "rewards.py").write_text(text)
    with pytest.raises(RunError, match=r"verifier mine \(rewards:score\) does not start") as error:
        Plugin(verifier(tmp_path), tmp_path, limits=QUICK)
    assert said in str(error.value)


def test_code_that_changed_after_the_plan_does_not_run(folder: Path) -> None:
    planned = verifier(folder)
    (folder / "rewards.py").write_text(CODE + "\n")
    with pytest.raises(RunError, match=r"rewards.py\) changed after the plan was made"):
        Plugin(planned, folder)


def test_an_installed_module_of_the_same_name_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def loads(row): return True")
    with pytest.raises(RunError, match="another module's name"):
        Plugin(verifier(tmp_path, "json:loads"), tmp_path)


def test_a_filter_keeps_what_it_says_and_leaves_open_what_it_cannot(folder: Path) -> None:
    mine = Call(fn="mine", verifier=verifier(folder))
    spec = Filter(name="kept", seed=7, rows="given", keep=condition(mine, "mine"))
    given = [row(f"r-{place}", do) for place, do in enumerate(("fine", "raise", "fine", "exit"))]
    work = work_order(spec, folder, {"given": given})
    with pytest.raises(Resumable, match="2 rows are undecided, mostly because: ValueError"):
        filter_stage.run(work)
    assert [line["id"] for line in table(work, "row")] == ["r-0", "r-2"]
    assert {(line["rule"], line["ok"]) for line in table(work, "verdict")} == {("mine", True)}


def test_unknown_is_kleene_and_masks_a_reward(folder: Path) -> None:
    mine = Call(fn="mine", verifier=verifier(folder))
    rows = [row("a", "raise"), row("b", "fine")]

    def outcomes(expr: Any) -> list[Any]:
        opener: Callable[[Verifier], Plugin] = lambda own: Plugin(own, folder, limits=QUICK)  # noqa: E731
        with Cascade(expr, PROMPT, open_plugin=opener, math=MathPool(1)) as cascade:
            return list(cascade.evaluate(rows))

    decided = either(mine, Binary(op="==", left=Lit(value=1), right=Lit(value=1)))
    assert [one.value for one in outcomes(condition(decided, "mine or 1 == 1"))] == [True, True]
    reward = Binary(op="*", left=Lit(value=0.5), right=mine)
    found = outcomes(row_expression(reward, "0.5 * mine", "number", []))
    assert [(one.value, one.undecided) for one in found] == [(None, True), (0.5, False)]
    assert found[0].parts == {"mine": None}
    assert UNKNOWN is not None


# ---- which code counts ------------------------------------------------------------------------------------------


def test_what_is_imported_from_the_folder_counts(tmp_path: Path) -> None:
    files = {
        "pkg/__init__.py": "",
        "pkg/rewards.py": "from . import words\nfrom .deep.more import x\nimport json, helper\n",
        "pkg/words.py": "",
        "pkg/deep/__init__.py": "",
        "pkg/deep/more.py": "def f():\n    import late\nx = 1",
        "helper.py": "import pkg.rewards",
        "late.py": "",
        "unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = read_code(tmp_path, "pkg.rewards:score")
    assert {str(file) for file in code.files} == files.keys() - {"unused.py"}
    assert str(code.files[0]) == "pkg/rewards.py"
    (tmp_path / "unused.py").write_text("x = 2")
    assert read_code(tmp_path, "pkg.rewards:score").digest == code.digest
    (tmp_path / "late.py").write_text("x = 2")
    assert read_code(tmp_path, "pkg.rewards:score").digest != code.digest


@pytest.mark.parametrize(
    "entry",
    ["a", "a:", ":b", "a:b:c", "../a:b", "a.:b", "a b:c", "os:system", "pkg:f", "a/b:c", ""],
)
def test_what_is_no_entry_or_not_there(tmp_path: Path, entry: str) -> None:
    (tmp_path / "pkg").mkdir()
    with pytest.raises(Unreadable):
        read_code(tmp_path, entry)


def test_code_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("def score(row): ...")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "rewards.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(Unreadable, match="leads out of the recipe's folder"):
        read_code(inside, "rewards:score")


# ---- the plan ---------------------------------------------------------------------------------------------------


RECIPE = """omr 1

source given from jsonl("given.jsonl") {
  columns {
    question = q
    answer   = a
  }
}

verifier mine = python("rewards:score") { version = 1 }

filter kept from given { keep = mine and len(answer) < 50 }
"""


def planned(folder: Path, recipe: str = RECIPE) -> Plan:
    path = folder / "recipe.omr"
    path.write_text(recipe)
    made, found = load(path)
    assert made is not None, render(found)
    return make_plan(made, folder / ".omr", path)


def test_the_plan_names_the_code_and_its_fingerprint_follows_it(folder: Path) -> None:
    (folder / "given.jsonl").write_text(json.dumps({"q": "How many?", "a": "4"}))
    before = planned(folder)
    assert [code.entry for code in before.code] == ["rewards:score"]
    assert before.code[0].files == ("rewards.py",)
    shown = plan_text(before, 100)
    assert "Code of this recipe that will run\n  rewards:score in filter.kept · rewards.py" in shown
    assert Plan.model_validate_json(before.model_dump_json()) == before
    (folder / "rewards.py").write_text(CODE.replace("0.5", "0.6"))
    after = planned(folder)
    assert after.stage("kept").fingerprint != before.stage("kept").fingerprint
    assert after.stage("given").fingerprint == before.stage("given").fingerprint
    renamed = planned(folder, RECIPE.replace("mine", "ours"))
    assert renamed.stage("kept").fingerprint == after.stage("kept").fingerprint
    newer = planned(folder, RECIPE.replace("version = 1", "version = 2"))
    assert newer.stage("kept").fingerprint != after.stage("kept").fingerprint


def test_workers_answer_side_by_side(folder: Path) -> None:
    plugin = Plugin(verifier(folder), folder, num_workers=2, limits=Limits(cpu_s=5.0, wall_s=1.0))
    start = time.monotonic()
    try:
        found = plugin.ask([row(str(k), "sleep", final_answer="sleep") for k in range(2)])
    finally:
        plugin.close()
    assert [reply.reason for reply in found] == ["timeout", "timeout"]
    assert time.monotonic() - start < 10
