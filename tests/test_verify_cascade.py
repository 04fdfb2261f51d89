"""The cascade: order, short circuits, verdicts, judges, unknown rows, rewards."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from verify_parts import (
    PROMPT,
    REFEREE,
    Program,
    ask,
    both,
    condition,
    either,
    judge,
    reward,
    row,
)

from omr_runtime.errors import RunError
from omr_runtime.verify.cascade import Cascade, Outcome
from omr_runtime.verify.judge import Judge
from omr_runtime.verify.math import MathPool, MathVerdict
from omr_runtime.verify.reward import Reward
from omrlang.types import Binary, Call, Col, Lit, OpenAI, RowExpr, Unary

SHORT = Binary(op="<=", left=Col(name="num_tokens"), right=Lit(value=50))
KEEP = condition(
    both(both(ask("format_ok"), ask("answer_matches")), SHORT),
    "format_ok",
    "answer_matches",
    "num_tokens <= 50",
)
MATCH_OR_JUDGE = condition(
    either(ask("answer_matches"), ask("judge")), "answer_matches or judge(referee)"
)


def outcomes(
    expr: RowExpr, rows: list[dict[str, Any]], referee: Judge | None = None
) -> list[Outcome]:
    opener = (lambda _: referee) if referee else None
    with Cascade(expr, PROMPT, open_judge=opener, math=MathPool(1), batch_rows=3) as cascade:  # type: ignore[arg-type]
        return list(cascade.evaluate(rows))


def rules(outcome: Outcome) -> list[tuple[str, bool | None]]:
    return [(verdict["rule"], verdict["ok"]) for verdict in outcome.verdicts]


def test_the_first_false_rule_is_the_reason_and_later_ones_are_not_asked() -> None:
    rows = [
        row("a", "4"),
        row("b", "5"),
        row("c", "4", response="The answer is 4"),
        row("d", "4", num_tokens=60),
        row("e", "4", num_tokens=None),
    ]
    good, wrong, unformatted, long, unsized = outcomes(KEEP, rows)
    assert (good.value, good.reason) == (True, None)
    assert rules(good) == [
        ("num_tokens <= 50", True),
        ("format_ok", True),
        ("answer_matches", True),
    ]
    assert (wrong.value, wrong.reason) == (False, "answer_matches")
    assert wrong.verdicts[-1]["reason"] == "5 is not 4"
    assert (unformatted.value, unformatted.reason) == (False, "format_ok")
    assert rules(unformatted) == [("num_tokens <= 50", True), ("format_ok", False)]
    assert (long.reason, rules(long)) == ("num_tokens <= 50", [("num_tokens <= 50", False)])
    assert unsized.reason == "num_tokens <= 50"


def test_format_ok_forgives_white_space_around_and_nothing_else() -> None:
    expr = condition(ask("format_ok"), "format_ok")
    good = "<think>a</think>\n<answer>4</answer>"
    texts = {
        good + "\n": True,
        f"\n {good}\n\n": True,
        good + " I hope.": False,
        "<answer>4</answer>": False,
        "<think>a<answer>4</answer>": False,
        "<think>a</think><answer></answer>": False,
        "<think>a</think><answer>3</answer><answer>4</answer>": False,
        "": False,
    }
    found = outcomes(expr, [row(str(i), "", response=text) for i, text in enumerate(texts)])
    assert [outcome.value for outcome in found] == list(texts.values())


def test_the_last_answer_counts() -> None:
    text = "<think>a</think><answer>3</answer><answer>4</answer>"
    (outcome,) = outcomes(
        condition(ask("answer_matches"), "answer_matches"), [row("a", "", response=text)]
    )
    assert outcome.value is True


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("B", True),
        ("blue", True),
        ("(B) blue", True),
        ("Because of X", False),
        ("A", False),
        ("C", False),
        ("\\text{Blue}", True),
    ],
)
def test_options(given: str, value: bool) -> None:
    expr = condition(ask("answer_matches"), "answer_matches")
    asked = row("a", given, answer="blue", options=["red", "blue"])
    (outcome,) = outcomes(expr, [asked])
    assert outcome.value is value


def test_math_verify_is_asked_for_what_rules_leave_open() -> None:
    expr = condition(ask("answer_matches"), "answer_matches")
    rows = [
        row("a", "120", answer="5!"),
        row("b", "121", answer="5!"),
        row("c", "4"),
    ]
    found = outcomes(expr, rows)
    assert [outcome.value for outcome in found] == [True, False, True]
    assert [outcome.verdicts[0]["reason"] for outcome in found] == [
        "math",
        "121 is not 5!",
        "exact",
    ]


def test_no_answer_is_wrong_and_says_so() -> None:
    expr = condition(ask("answer_matches"), "answer_matches")
    cut = row("a", "", response="<think>never ended")
    found = outcomes(expr, [cut, row("b", "4", answer=None), row("c", "", response=None)])
    assert [o.verdicts[0]["reason"] for o in found] == [
        "no final answer",
        "no true answer",
        "no final answer",
    ]


def test_the_judge_is_asked_for_what_the_rules_refuse_once_for_each_triple() -> None:
    referee, engine = judge({"four": "yes", "five": "no"})
    rows = [
        row("a", "4"),
        row("b", "four"),
        row("c", "five"),
        row("d", "four"),
        row("e", "four", question="Else?"),
    ]
    found = outcomes(MATCH_OR_JUDGE, rows, referee)
    assert [outcome.value for outcome in found] == [True, True, False, True, True]
    assert sorted(engine.asked) == ["five", "four", "four"], "one more for the other question"
    assert rules(found[0]) == [("answer_matches", True), ("answer_matches or judge(referee)", True)]
    assert ("judge(referee)", True) in rules(found[1])
    assert found[2].reason == "answer_matches or judge(referee)"
    assert engine.closed


def test_an_unknown_answer_of_the_judge_leaves_the_row_undecided() -> None:
    referee, _ = judge({"four": "maybe", "5": "no"})
    expr = condition(
        both(either(ask("answer_matches"), ask("judge")), ask("format_ok")), "match", "format_ok"
    )
    loose = row("c", "six", response="<answer>six</answer>")
    unclear, wrong, unformatted = outcomes(expr, [row("a", "four"), row("b", "5"), loose], referee)
    assert unclear.undecided
    assert unclear.value is None
    assert (wrong.value, wrong.undecided) == (False, False)
    assert (unformatted.value, unformatted.reason) == (False, "format_ok"), (
        "false whatever the judge says"
    )
    assert [v["reason"] for v in unclear.verdicts if v["rule"] == "judge(referee)"] == [
        "neither yes nor no: 'maybe'"
    ]


def test_not_of_unknown_is_unknown() -> None:
    referee, _ = judge({})
    expr = condition(Unary(op="not", x=ask("judge")), "not judge(referee)")
    (outcome,) = outcomes(expr, [row("a", "four")], referee)
    assert outcome.undecided
    assert outcome.verdicts[0]["reason"] == "no route to host"


@pytest.mark.parametrize(
    ("text", "ok"),
    [("yes", True), ("Yes.", True), (" NO\n", False), ("yes no", None), ("", None), ("y", None)],
)
def test_what_a_judge_may_say(text: str, ok: bool | None) -> None:
    referee, _ = judge({"four": text})
    assert [opinion.ok for opinion in referee.ask([("q", "4", "four")])] == [ok]


def test_the_judge_sees_what_the_recipe_says() -> None:
    class Listener(Program):
        def generate(self, requests: Any, done: Any) -> None:
            self.asked += [request.row["question"] for request in requests]
            super().generate(requests, done)

    engine = Listener({})
    blind = Call(
        fn="judge",
        model=REFEREE,
        named=(("question", Lit(value=False)), ("sees", Lit(value="response"))),
    )
    outcomes(condition(blind, "judge"), [row("a", "four")], Judge("referee", engine))
    assert (
        engine.asked[0]
        == "True answer:\n4\n\nGiven answer:\n<think>so</think><answer>four</answer>"
    )


def test_a_judge_without_an_address_stops_before_any_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFEREE_URL", raising=False)
    remote = REFEREE.model_copy(update={"engine": OpenAI(url_env="REFEREE_URL")})
    expr = condition(Call(fn="judge", model=remote), "judge(referee)")
    with pytest.raises(
        RunError, match="judge referee: no address, the environment variable REFEREE_URL"
    ):
        outcomes(expr, [])


def test_pass_rate_by_question() -> None:
    asked = Binary(op=">=", left=Call(fn="pass_rate", stages=("probe",)), right=Lit(value=0.5))
    rates = {"probe": {"c-a": 0.5, "c-b": 0.25}}
    expr = condition(asked, "pass_rate(probe) >= 0.5")
    with Cascade(expr, PROMPT, pass_rates=rates, math=MathPool(1)) as cascade:
        found = list(cascade.evaluate([row("a", "4"), row("b", "4"), row("c", "4")]))
    assert [outcome.value for outcome in found] == [True, False, False]
    assert rules(found[0])[0][0] == "pass_rate(probe)"


class BusyMath(MathPool):
    """Answers nothing before it is let go."""

    def __init__(self) -> None:
        super().__init__(1)
        self.free = threading.Event()

    def check(self, pairs: Iterable[tuple[str, str]]) -> list[MathVerdict]:
        assert self.free.wait(30), "the rules never came to the last row"
        return [MathVerdict(False) for _ in pairs]


def test_rules_go_on_while_math_verify_is_busy() -> None:
    """The first of ten rows needs it and the rest do not; all are judged, and then given in order."""
    math = BusyMath()

    def rows() -> Iterator[dict[str, Any]]:
        yield row("r0", "\\sin(x)", answer="\\cos(x)")
        yield from (row(f"r{number}", "4") for number in range(1, 10))
        math.free.set()

    expr = condition(ask("answer_matches"), "answer_matches")
    with Cascade(expr, PROMPT, math=math, batch_rows=2) as cascade:
        found = list(cascade.evaluate(rows()))
    assert [outcome.row["id"] for outcome in found] == [f"r{number}" for number in range(10)]
    assert [outcome.value for outcome in found] == [False, *[True] * 9]


def test_a_format_that_is_not_known_is_an_error() -> None:
    cascade = Cascade(condition(ask("format_ok"), "format_ok"), math=MathPool(1))
    with cascade, pytest.raises(RunError, match=r"row a: .*format of prompt 'short:"):
        list(cascade.evaluate([row("a", "4")]))


def test_rewards_with_their_parts() -> None:
    referee, _ = judge({"four": "yes", "five": "no"})
    rollouts = [
        row("a", "4"),
        row("b", "four"),
        row("c", "five"),
        row("d", "4", response="<answer>4</answer>"),
        row("e", "sechs"),
    ]
    cascade = Cascade(reward(), PROMPT, open_judge=lambda _: referee, math=MathPool(1))
    with Reward(cascade) as scorer:
        scored = scorer.score(rollouts)
    values = [one.value for one in scored]
    assert values[:4] == pytest.approx([1.0, 1.0, 0.1, 0.9])
    assert values[4] is None, "unknown masks the rollout"
    assert scored[0].parts == {"answer_matches": 1.0, "format_score": 1.0}
    assert scored[4].parts["judge(referee)"] is None
    assert [one.final_answer for one in scored] == ["4", "four", "five", "4", "sechs"]
