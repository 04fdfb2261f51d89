"""The eval stage: every answer a row with its score, intervals, benchmarks, resuming."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
from verify_parts import (
    PROMPT,
    REFEREE,
    ask,
    condition,
    either,
    judge,
    response,
    row,
    table,
    work_order,
)

from omr_runtime.errors import Resumable, RunError
from omr_runtime.stages import eval as stage
from omr_runtime.verify import asking
from omr_runtime.verify.accuracy import (
    Answer,
    Z,
    clustered_error,
    counted,
    interval,
    measure,
    wilson,
)
from omr_runtime.verify.economy import Manner, economy
from omr_runtime.work import Work
from omrlang.schema import Eval
from omrlang.types import Chains, RowExpr, Worst


def spec(rows: Sequence[str] = ("easy", "hard"), n: int = 1, score: RowExpr | None = None) -> Eval:
    return Eval(
        name="after",
        seed=7,
        rows=tuple(rows),
        model=REFEREE,
        prompt=PROMPT,
        temperature=0,
        max_tokens=64,
        n=n,
        score=score,
    )


def questions(name: str, number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{name}{k}",
            "content": f"{name}{k}",
            "source": name,
            "question": "How many?",
            "answer": "4",
        }
        for k in range(number)
    ]


Write = Callable[[str, int], str]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Callable[[Write], None]:
    """Puts a program in the place of the ledger: what it writes for a question and an index."""

    def set_(write: Write) -> None:
        def sample_rows(
            work: Work, rows: Any, prompt: Any, model: Any, decoding: Any, n: int
        ) -> Iterator[dict[str, Any]]:
            assert decoding.temperature == 0
            for question in rows:
                for index in range(n):
                    text = write(question["id"], index)
                    yield row(
                        f"{question['id']}-{index}",
                        "",
                        parent=question["id"],
                        options=question.get("options"),
                        response=text,
                        num_tokens=len(text),
                        finish="error" if text == "!" else "stop",
                        error="no route" if text == "!" else None,
                    )

        ledger = SimpleNamespace(sample_rows=sample_rows, ledger_name=lambda *_: None)
        monkeypatch.setitem(sys.modules, "omr_runtime.ledger", ledger)  # type: ignore[arg-type]

    return set_


def test_every_answer_is_a_row_with_its_score(
    tmp_path: Path, model: Callable[[Write], None]
) -> None:
    model(lambda question, index: response("4") if question.startswith("easy") else "4")
    work = work_order(
        spec(), tmp_path, {"easy": questions("easy", 6), "hard": questions("hard", 2)}
    )
    stage.run(work)
    assert len(table(work, "row")) == 8
    assert {
        line["row"]: line["score"]
        for line in table(work, "verdict")
        if line["rule"] == "answer_matches"
    } == {
        **{f"easy{k}-0": 1.0 for k in range(6)},
        **{f"hard{k}-0": 0.0 for k in range(2)},
    }
    done = json.loads((Path(work.out) / "done.json").read_text())
    assert done["num_in"] == 8
    metrics = done["metrics"]
    assert metrics["accuracy"] == 0.75
    assert metrics["format_rate"] == 0.75
    assert (metrics["accuracy_lo"], metrics["accuracy_hi"]) == wilson(0.75, 8)
    assert {name: part["accuracy"] for name, part in metrics["by_source"].items()} == {
        "easy": 1.0,
        "hard": 0.0,
    }
    assert metrics["mean_response_tokens"] == fmean(r["num_tokens"] for r in table(work, "row"))
    lines = {line["name"]: line["value"] for line in table(work, "metric")}
    assert (lines["accuracy"], lines["hard/accuracy"], lines["num_questions"]) == (0.75, 0.0, 8)


def test_several_answers_to_a_question_are_averaged(
    tmp_path: Path, model: Callable[[Write], None]
) -> None:
    model(lambda question, index: response("4" if index < int(question[4:]) else "5"))
    work = work_order(spec(["easy"], n=4), tmp_path, {"easy": questions("easy", 5)})
    stage.run(work)
    metrics = json.loads((Path(work.out) / "done.json").read_text())["metrics"]
    assert metrics["accuracy"] == 0.5
    assert metrics["num_questions"] == 5
    assert metrics["num_answers"] == 20
    assert metrics["accuracy_lo"] < wilson(0.5, 20)[0], (
        "answers to one question are not independent"
    )


def test_a_restart_scores_only_what_no_shard_holds(
    tmp_path: Path, model: Callable[[Write], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SLICE_ROWS", 4)
    model(lambda question, index: response("4"))
    work = work_order(spec(["easy"]), tmp_path, {"easy": questions("easy", 10)})
    stage.run(work)
    for name in ("shard-00001.json", "shard-99999.json", "done.json"):
        (Path(work.out) / name).unlink()
    untouched = (Path(work.out) / "part-00000.parquet").stat().st_mtime_ns
    stage.run(work)
    assert (Path(work.out) / "part-00000.parquet").stat().st_mtime_ns == untouched
    assert sorted(r["id"] for r in table(work, "row")) == sorted(f"easy{k}-0" for k in range(10))
    assert len(table(work, "metric")) == len({line["name"] for line in table(work, "metric")})


def test_answers_that_a_judge_could_not_score_are_asked_again(
    tmp_path: Path, model: Callable[[Write], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model(lambda question, index: response("four" if question == "easy1" else "4"))
    score = condition(
        either(ask("answer_matches"), ask("judge")), "answer_matches or judge(referee)"
    )
    work = work_order(spec(["easy"], score=score), tmp_path, {"easy": questions("easy", 3)})
    monkeypatch.setattr(asking, "judge_opener", lambda work: lambda model: judge({})[0])
    with pytest.raises(
        Resumable, match="1 answers are not scored, mostly because: no route to host"
    ):
        stage.run(work)
    monkeypatch.setattr(
        asking, "judge_opener", lambda work: lambda model: judge({"four": "yes"})[0]
    )
    stage.run(work)
    metrics = json.loads((Path(work.out) / "done.json").read_text())["metrics"]
    assert (metrics["accuracy"], metrics["num_answers"]) == (1.0, 3)


def test_answers_that_could_not_be_had_are_dropped_and_counted(
    tmp_path: Path, model: Callable[[Write], None]
) -> None:
    model(lambda question, index: "!" if question == "easy1" else response("4"))
    work = work_order(spec(["easy"]), tmp_path, {"easy": questions("easy", 3)})
    stage.run(work)
    assert [line["reason"] for line in table(work, "dropped")] == ["not answered: no route"]
    done = json.loads((Path(work.out) / "done.json").read_text())
    assert done["num_in"] == 3
    assert (done["metrics"]["accuracy"], done["metrics"]["num_failed"]) == (1.0, 1)
    model(lambda question, index: "!")
    nothing = work_order(spec(["easy"]), tmp_path / "nothing", {"easy": questions("easy", 3)})
    with pytest.raises(RunError, match="not one question was answered; not answered: no route"):
        stage.run(nothing)
    assert table(nothing, "dropped") == []


def test_no_questions(tmp_path: Path, model: Callable[[Write], None]) -> None:
    model(lambda question, index: "")
    work = work_order(spec(["easy"]), tmp_path, {"easy": []})
    stage.run(work)
    assert json.loads((Path(work.out) / "done.json").read_text())["metrics"] == {
        "by_source": {},
        "by_category": {},
        "num_failed": 0,
    }


# ---- intervals -------------------------------------------------------------------------------------------------


def test_wilson_published_values() -> None:
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def test_clusters_of_one_are_the_usual_standard_error() -> None:
    scores = [0.0, 0.25, 1.0, 0.5]
    mean = fmean(scores)
    usual = (sum((s - mean) ** 2 for s in scores) / 3 / 4) ** 0.5
    assert clustered_error([[s] for s in scores], mean) == pytest.approx(usual)


@pytest.mark.parametrize("n", [1, 8])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n: int) -> None:
    draw = random.Random(7)
    covered = 0
    for _ in range(400):
        answers = []
        for question in range(60):
            chance = draw.random()
            answers += [answer(str(question), float(draw.random() < chance)) for _ in range(n)]
        low, high = interval(counted("mean", answers))
        covered += low <= 0.5 <= high
    assert 0.91 <= covered / 400 <= 0.99


def test_measure_of_nothing_and_of_agreement() -> None:
    assert measure({}) == measure({"mean": []}) == {}
    answers = [answer(str(q), 1.0) for q in range(10) for _ in range(4)]
    assert interval(counted("mean", answers)) == wilson(1.0, 10)


def test_what_answers_cost_and_how_they_read() -> None:
    """A hundred answers of 1 .. 100 tokens; the two longest are cut, one in four is in the format."""
    found = economy([Manner(n, n % 4 == 0, n > 98, 10, n == 1) for n in range(1, 101)])
    assert found == {
        "mean_response_tokens": 50.5,
        "median_response_tokens": 50.5,
        "p95_response_tokens": 95.0,
        "format_rate": 0.25,
        "truncation_rate": 0.02,
        "reflection_share": 0.001,
    }
    assert economy([Manner(7, True)])["p95_response_tokens"] == 7.0
    assert economy([Manner(7, True)])["reflection_share"] == 0.0, "no words, no share"


def test_accuracy_by_what_a_benchmark_says_of_its_questions(
    tmp_path: Path, model: Callable[[Write], None]
) -> None:
    """Few values of a mapped column are categories; one for each question, or the same for all, is none."""
    model(lambda question, index: response("4" if question in ("easy0", "easy1") else "5"))
    rows = [
        row | {"extra": json.dumps({"kind": "ab"[at % 2], "number": at, "set": "one"})}
        for at, row in enumerate(questions("easy", 30))
    ]
    work = work_order(spec(["easy"]), tmp_path, {"easy": rows})
    stage.run(work)
    metrics = json.loads((Path(work.out) / "done.json").read_text())["metrics"]
    assert set(metrics["by_category"]) == {"kind"}
    kinds = metrics["by_category"]["kind"]
    assert {kind: found["accuracy"] for kind, found in kinds.items()} == {"a": 1 / 15, "b": 1 / 15}
    lines = {line["name"]: line["value"] for line in table(work, "metric")}
    assert lines["extra.kind = a/num_questions"] == 15
    assert lines["truncation_rate"] == 0.0


# ---- how scores are counted --------------------------------------------------------------------------------------

WORST = Worst(by="variant")


def answer(
    question: str, score: float, problem: str | None = None, said: str | None = None
) -> Answer:
    return Answer(question, score, problem or question, Manner(5, True), said)


def test_worst_counts_a_problem_only_where_every_variant_is_right() -> None:
    """Three problems of two variants: both right, one right, none right."""
    rights = {"a": (1.0, 1.0), "b": (1.0, 0.0), "c": (0.0, 0.0)}
    answers = [
        answer(f"{problem}{at}", score, problem)
        for problem, scores in rights.items()
        for at, score in enumerate(scores)
    ]
    found = measure({WORST: answers})
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["mean_score"] == 0.5
    assert (found["accuracy_lo"], found["accuracy_hi"]) == wilson(1 / 3, 3), "problems, not rows"
    assert (found["num_questions"], found["num_answers"]) == (6, 6)


def test_with_several_answers_the_worst_variant_is_that_of_the_lowest_mean() -> None:
    scores = {"x": (1.0, 1.0, 1.0, 0.0), "y": (1.0, 0.0, 0.0, 1.0)}
    answers = [answer(variant, score, "p") for variant, given in scores.items() for score in given]
    assert counted(WORST, answers) == [("p", 0.5)]
    assert counted("mean", answers) == [
        ("p", score) for given in scores.values() for score in given
    ]


def released_wemath(chains: list[tuple[bool, list[bool]]], *, loose: bool) -> float:
    """We-Math's own count, by its four outcomes: (N - 0.5 * IG - RM - IK) / N."""
    generalised_badly = sum(all(steps) and not whole for whole, steps in chains)
    knows_too_little = sum(not all(steps) and not whole for whole, steps in chains)
    by_rote = sum(whole and not (any(steps) if loose else all(steps)) for whole, steps in chains)
    return (len(chains) - 0.5 * generalised_badly - by_rote - knows_too_little) / len(chains)


@pytest.mark.parametrize("loose", [True, False])
def test_chains_count_as_we_math_counts_them(loose: bool) -> None:
    """Every outcome of two and of three steps, and 525 chains at random with the shares of the set."""
    outcomes = [
        (whole, list(steps))
        for num in (2, 3)
        for whole in (True, False)
        for steps in itertools.product((True, False), repeat=num)
    ]
    draw = random.Random(5)
    drawn = [
        (draw.random() < 0.6, [draw.random() < 0.8 for _ in range(2 if n < 360 else 3)])
        for n in range(525)
    ]
    for chains in ([one] for one in outcomes):
        assert _counted_chains(chains, loose) == pytest.approx(released_wemath(chains, loose=loose))
    assert _counted_chains(drawn, loose) == pytest.approx(released_wemath(drawn, loose=loose))


def _counted_chains(chains: list[tuple[bool, list[bool]]], loose: bool) -> float:
    answers = [
        Answer(f"{n}.{step}", float(right), str(n), Manner(5, True), step=step)
        for n, (whole, steps) in enumerate(chains)
        for step, right in [*((str(k), it) for k, it in enumerate(steps)), ("multi", whole)]
    ]
    way = Chains(by="variant", whole="multi", loose=loose)
    assert measure({way: answers[:1]}).get("accuracy") is None, "a step alone is no chain"
    return measure({way: answers})["accuracy"]


def test_an_eval_counts_chains_by_the_columns_of_its_rows(
    tmp_path: Path, model: Callable[[Write], None]
) -> None:
    """Two chains of two steps and the whole; of the second the whole is wrong: one and a half of two."""
    model(lambda question, index: response("5" if question.endswith("5") else "4"))
    steps = ["1", "2", "multi"] * 2
    rows = [
        row | {"variant": str(k // 3), "extra": json.dumps({"step": steps[k]})}
        for k, row in enumerate(questions("chained", 6))
    ]
    way = Chains(by="variant", whole="multi")
    asked = spec(["chained"]).model_copy(update={"own_aggregates": {"chained": way}})
    work = work_order(asked, tmp_path, {"chained": rows})
    stage.run(work)
    metrics = json.loads((Path(work.out) / "done.json").read_text())["metrics"]
    assert (metrics["accuracy"], metrics["mean_score"]) == (0.75, pytest.approx(5 / 6))
    by_step = {name: it["accuracy"] for name, it in metrics["by_category"]["step"].items()}
    assert by_step == {"1": 1.0, "2": 1.0, "multi": 0.5}


def test_variants_of_one_problem_are_one_cluster_of_the_mean() -> None:
    """Ten variants that always agree say no more than one: the interval is that of the problems."""
    answers = [answer(f"{p}.{v}", float(p % 2), str(p)) for p in range(30) for v in range(10)]
    alone = [answer(str(p), float(p % 2)) for p in range(30)]
    wide, narrow = measure({"mean": answers}), wilson(0.5, 300)
    assert wide["accuracy"] == 0.5
    error = clustered_error([[a.score] for a in alone], 0.5)
    assert wide["accuracy_hi"] - 0.5 == pytest.approx(Z * error)
    assert wide["accuracy_hi"] > 0.65 > narrow[1]


@pytest.mark.parametrize("n", [1, 4])
def test_intervals_of_the_worst_cover_the_truth(n: int) -> None:
    """Three variants with an error each of 10%, drawn for 60 problems: the truth is found from many."""
    draw = random.Random(11)

    def problems(number: int) -> list[Answer]:
        chances = [
            (f"{p}", f"{p}.{v}", draw.betavariate(6, 1)) for p in range(number) for v in range(3)
        ]
        return [
            answer(question, float(draw.random() < chance), problem)
            for problem, question, chance in chances
            for _ in range(n)
        ]

    truth = fmean(value for _, value in counted(WORST, problems(20_000)))
    ends = [interval(counted(WORST, problems(60))) for _ in range(300)]
    assert 0.90 <= sum(low <= truth <= high for low, high in ends) / 300 <= 0.99


@pytest.mark.parametrize(
    ("said", "scores", "value"),
    [
        (["4", "5", "4.0"], [1.0, 0.0, 1.0], 1.0),
        (["5", "4", "five", "5"], [0.0, 1.0, 0.0, 0.0], 0.0),
        (["5", "4"], [0.0, 1.0], 1.0),  # one vote each: the first in the alphabet
        (["4", None, None], [1.0, 0.0, 0.0], 1.0),
        ([None, None], [0.0, 0.0], 0.0),
    ],
)
def test_majority(said: list[str | None], scores: list[float], value: float) -> None:
    answers = [answer("q", score, said=text) for text, score in zip(said, scores, strict=True)]
    assert counted("majority", answers) == counted("majority", answers[::-1]) == [("q", value)]


def test_of_several_benchmarks_each_is_counted_its_way(
    tmp_path: Path, model: Callable[[Write], None]
) -> None:
    """Every second variant is wrong: half of the rows, and no problem, are right."""
    model(lambda question, index: response("4" if int(question[-1]) % 2 else "5"))
    varied = [row | {"variant": str(k // 2)} for k, row in enumerate(questions("varied", 8))]
    inputs = {"easy": questions("easy", 4), "varied": varied}
    asked = spec(["easy", "varied"]).model_copy(update={"own_aggregates": {"varied": WORST}})
    work = work_order(asked, tmp_path, inputs)
    stage.run(work)
    metrics = json.loads((Path(work.out) / "done.json").read_text())["metrics"]
    easy, worst = (metrics["by_source"][name] for name in ("easy", "varied"))
    assert (easy["accuracy"], "mean_score" in easy) == (0.5, False)
    assert (worst["accuracy"], worst["mean_score"], worst["num_questions"]) == (0.0, 0.5, 8)
    assert (worst["accuracy_lo"], worst["accuracy_hi"]) == wilson(0.0, 4)
    assert metrics["accuracy"] == pytest.approx(2 / 8), "four rows and four problems"
    lines = {line["name"]: line["value"] for line in table(work, "metric")}
    assert (lines["varied/accuracy"], lines["varied/mean_score"]) == (0.0, 0.5)
    everywhere = asked.model_copy(update={"aggregate": "mean", "name": "again"})
    again = work_order(everywhere, tmp_path, inputs)
    stage.run(again)
    assert json.loads((Path(again.out) / "done.json").read_text())["metrics"]["accuracy"] == 0.5


def test_a_letter_and_its_text_are_one_vote(tmp_path: Path, model: Callable[[Write], None]) -> None:
    model(lambda question, index: response(["B", "4", "red"][index]))
    asked = spec(["easy"], n=3).model_copy(update={"aggregate": "majority"})
    rows = [{**row, "options": ["red", "4"]} for row in questions("easy", 2)]
    work = work_order(asked, tmp_path, {"easy": rows})
    stage.run(work)
    metrics = json.loads((Path(work.out) / "done.json").read_text())["metrics"]
    assert (metrics["accuracy"], metrics["num_questions"]) == (1.0, 2)
