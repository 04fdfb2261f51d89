"""The filter stage: shards that resume, caps per parent, undecided rows, in = kept + dropped, pass rates."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify_parts import (
    PROMPT,
    ask,
    both,
    condition,
    either,
    judge,
    response,
    row,
    table,
    work_order,
)

from omr_runtime.errors import Resumable
from omr_runtime.identity import order_key
from omr_runtime.stages import filter as stage
from omr_runtime.verify import asking, slices
from omr_runtime.verify.judge import Judge
from omr_runtime.verify.passrates import read_pass_rates
from omr_runtime.work import Shards, Work
from omrlang.schema import Filter
from omrlang.types import Amount, Binary, Call, Lit, RowExpr

KEEP = condition(both(ask("format_ok"), ask("answer_matches")), "format_ok", "answer_matches")
JUDGED = condition(either(ask("answer_matches"), ask("judge")), "answer_matches or judge(referee)")


def spec(keep: RowExpr = KEEP, at_most: int | None = None) -> Filter:
    cap = Amount(value=at_most, unit="per parent") if at_most else None
    return Filter(name="accepted", seed=7, rows="traces", keep=keep, at_most=cap)


def traces(num_questions: int, n: int = 4) -> list[dict[str, Any]]:
    """Samples of questions: the first of each without format, the second wrong, the others right."""
    made = []
    for question in range(num_questions):
        for index in range(n):
            text = "4" if index == 0 else response("5" if index == 1 else "4")
            made.append(row(f"{question}-{index}", "", response=text, sample_index=index))
    return made


def ids(work: Work, name: str, column: str = "id") -> list[str]:
    return [line[column] for line in table(work, name)]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices.slicing, "__defaults__", (10,))


@pytest.fixture
def referee(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets what the judge of the next run says."""

    def says(answers: dict[str, str]) -> None:
        monkeypatch.setattr(asking, "judge_opener", lambda work: lambda model: _fresh(answers))

    def _fresh(answers: dict[str, str]) -> Judge:
        return judge(answers)[0]

    return says


def test_rows_verdicts_and_reasons(tmp_path: Path) -> None:
    rows = traces(8)
    work = work_order(spec(), tmp_path, {"traces": rows})
    stage.run(work)
    assert ids(work, "row") == [r["id"] for r in rows if r["sample_index"] > 1]
    reasons = Counter(line["reason"] for line in table(work, "dropped"))
    assert reasons == {"format_ok": 8, "answer_matches": 8}
    assert len(table(work, "row")) + len(table(work, "dropped")) == len(rows)
    verdicts = [line for line in table(work, "verdict") if line["row"] == "0-2"]
    assert [(v["rule"], v["ok"]) for v in verdicts] == [
        ("format_ok", True),
        ("answer_matches", True),
    ]
    assert table(work, "row")[0]["final_answer"] == "4"
    assert json.loads((Path(work.out) / "done.json").read_text()).keys() == {"peak_bytes"}
    assert len(Shards(work.out).numbers()) == 4


def test_a_restarted_worker_goes_on_after_the_shards_that_are_there(tmp_path: Path) -> None:
    rows = traces(20)
    whole = work_order(spec(), tmp_path / "whole", {"traces": rows})
    stage.run(whole)
    broken = work_order(spec(), tmp_path / "broken", {"traces": rows})
    stage.run(broken)
    for number in (1, 3):
        (Path(broken.out) / f"shard-{number:05d}.json").unlink()
    (Path(broken.out) / "done.json").unlink()
    untouched = (Path(broken.out) / "part-00000.parquet").stat().st_mtime_ns
    stage.run(broken)
    assert (Path(broken.out) / "part-00000.parquet").stat().st_mtime_ns == untouched
    for name in ("row", "dropped", "verdict", "tally"):
        assert table(whole, name) == table(broken, name)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_at_most_keeps_the_lowest_in_the_order_of_the_seed(tmp_path: Path, limit: int) -> None:
    rows = traces(6, n=8)
    rows.sort(key=lambda r: r["sample_index"])  # samples of a question do not stand together
    work = work_order(spec(at_most=limit), tmp_path, {"traces": rows})
    stage.run(work)
    for question in range(6):
        passed = [r["id"] for r in rows if r["parent"] == f"q-{question}" and r["sample_index"] > 1]
        best = sorted(passed, key=lambda name: order_key(7, "at_most", name))[:limit]
        assert sorted(
            r["id"] for r in table(work, "row") if r["parent"] == f"q-{question}"
        ) == sorted(best)
    over = [d for d in table(work, "dropped") if d["reason"] == f"at_most = {limit} per parent"]
    assert len(over) == 6 * (6 - limit)
    assert len(table(work, "row")) + len(table(work, "dropped")) == len(rows)


def test_undecided_rows_are_neither_kept_nor_dropped_and_are_asked_again(
    tmp_path: Path, referee: Callable[[dict[str, str]], None]
) -> None:
    rows = [row(f"{k}-0", "four" if k % 3 else "4") for k in range(25)]
    work = work_order(spec(JUDGED), tmp_path, {"traces": rows})
    referee({})
    with pytest.raises(Resumable, match="16 rows are undecided, mostly because: no route to host"):
        stage.run(work)
    assert len(ids(work, "row")) == 9
    assert table(work, "dropped") == []
    assert not (Path(work.out) / "done.json").exists()
    before = Shards(work.out).numbers()
    referee({"four": "yes"})
    stage.run(work)
    assert sorted(ids(work, "row")) == sorted(r["id"] for r in rows)
    assert Shards(work.out).numbers() > before
    assert (Path(work.out) / "done.json").exists()
    stage.run(work)
    assert len(ids(work, "row")) == 25, "a run with nothing to do adds nothing"


def answers_of(rows: list[dict[str, Any]]) -> set[str]:
    return {r["id"] for r in rows}


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["4", "5", "four"])), max_size=30),
    st.integers(1, 3),
)
def test_a_cap_with_undecided_rows_ends_as_if_all_had_been_known(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[int, str]], limit: int
) -> None:
    """Law: whatever was unknown at first, the rows kept in the end are those of a run in which nothing was."""
    rows = [row(f"{question}-{k}", text) for k, (question, text) in enumerate(samples)]
    folder = tmp_path_factory.mktemp("cap")
    kept = []
    for name, attempts in (
        ("at_once", [{"four": "yes", "5": "no"}]),
        ("later", [{}, {"5": "no"}, {"four": "yes", "5": "no"}]),
    ):
        work = work_order(spec(JUDGED, at_most=limit), folder / name, {"traces": rows})
        for answers in attempts:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    asking, "judge_opener", lambda work, a=answers: lambda model: judge(a)[0]
                )
                try:
                    stage.run(work)
                except Resumable:
                    continue
        assert (Path(work.out) / "done.json").exists()
        assert len(ids(work, "row")) + len(ids(work, "dropped", "row")) == len(rows)
        assert len(set(ids(work, "row")) | set(ids(work, "dropped", "row"))) == len(rows)
        kept.append(answers_of(table(work, "row")))
    assert kept[0] == kept[1]
    shutil.rmtree(folder)


def test_pass_rate_is_the_share_before_the_cap(tmp_path: Path) -> None:
    rows = traces(3, n=4) + [row(f"9-{k}", "5") for k in range(2)]
    work = work_order(spec(at_most=1), tmp_path, {"traces": rows})
    stage.run(work)
    rates = read_pass_rates(work.out)
    assert rates == {"c-0": 0.5, "c-1": 0.5, "c-2": 0.5, "c-9": 0.0}
    rate = Call(fn="pass_rate", stages=("accepted",))
    some = condition(Binary(op=">", left=rate, right=Lit(value=0.1)), "pass_rate(accepted) > 0.1")
    questions = [row("0", "4"), row("9", "4"), row("7", "4")]
    later = work_order(
        Filter(name="hard", seed=7, rows="questions", keep=some), tmp_path, {"questions": questions}
    )
    others = (work.inputs[0].model_copy(update={"name": "accepted", "folder": work.out}),)
    later = later.model_copy(update={"others": others})
    stage.run(later)
    assert ids(later, "row") == ["0"]
    assert [d["reason"] for d in table(later, "dropped")] == ["pass_rate(accepted) > 0.1"] * 2


def test_no_rows_at_all(tmp_path: Path) -> None:
    work = work_order(spec(), tmp_path, {"traces": []})
    stage.run(work)
    assert table(work, "row") == []
    assert (Path(work.out) / "done.json").exists()


def test_the_prompt_of_a_row_is_found_by_its_label(tmp_path: Path) -> None:
    other = PROMPT.model_copy(update={"name": "other", "answer": "final"})
    from omr_runtime.chat import prompt_label

    rows = [
        row("a-0", "4"),
        row("b-0", "", prompt=prompt_label(other), response="<think></think><final>4</final>"),
    ]
    work = work_order(spec(), tmp_path, {"traces": rows}).model_copy(
        update={"prompts": (PROMPT, other)}
    )
    stage.run(work)
    assert ids(work, "row") == ["a-0", "b-0"]
