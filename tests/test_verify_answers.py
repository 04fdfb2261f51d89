"""Rules on answers: what must be accepted, what must be refused, and real answers against each other."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omr_runtime.verify.answers import choice, clean, decide, exact, is_prose
from omr_runtime.verify.quantities import number_of

EQUAL = [
    ("4", " 4 \n"),
    ("4", "4.0"),
    ("4", "4."),
    ("4", "$4$"),
    ("4", "\\boxed{4}"),
    ("4", "\\(4\\)"),
    ("4", "**4**"),
    ("4", "The answer is 4."),
    ("4", "x = 4"),
    ("4", "+4"),
    ("Blue", "blue"),
    ("Blue", "\\text{Blue}"),
    ("blue", "The blue."),
    ("blue circle", "Blue  Circle"),
    ("1234", "1,234"),
    ("1,234,567", "1234567"),
    ("1234", "1{,}234"),
    ("1000", "1 000"),
    ("1234567.5", "1\\,234\\,567.50"),
    ("18", "18$"),
    ("18", "18.00€"),
    ("28\\%", "28 pct"),
    ("1/3", "\\cfrac{1}{3} \\text{meters}"),
    ("1/3", "$k = \\frac13 $"),
    ("18", "$18"),
    ("18", "$18.00"),
    ("18", "\\$18"),
    ("18", "18 dollars"),
    ("12", "12 cm"),
    ("12 cm^2", "12"),
    ("12 cm^2", "12 square centimeters"),
    ("12 cm", "12 centimetres"),
    ("90", "90°"),
    ("90", "90^\\circ"),
    ("-5", "−5"),
    ("-5", "- 5"),
    ("0.5", "1/2"),
    ("\\frac{1}{2}", "0.5"),
    ("\\dfrac12", "1/2"),
    ("7/2", "3 1/2"),
    ("3\\frac{1}{2}", "3.5"),
    ("1500", "1.5e3"),
    ("6.02\\times10^{23}", "6.02e23"),
    ("1/3", "0.3333"),
    ("10%", "10"),
    ("10\\%", "0.1"),
    ("4.0999999999999996", "4.1"),
    ("(3, 4)", "( 3,4 )"),
    ("(1/2, 3)", "(0.5, 3.0)"),
    ("8:30", "8:30"),
]

DIFFERENT = [
    ("4", ""),
    ("4", "   "),
    ("4", "5"),
    ("4", "-4"),
    ("4", "40"),
    ("2", "2x+1"),
    ("2", "2x"),
    ("2", "2 x"),
    ("4", "(3, 4)"),
    ("3", "(3, 4)"),
    ("(3, 4)", "4"),
    ("(3, 1)", "(2, 1)"),
    ("(3, 4)", "[3, 4]"),
    ("(3, 4)", "(4, 3)"),
    ("8:30", "8"),
    ("8", "8:30"),
    ("1.5e3", "1.5"),
    ("6.02\\times10^{23}", "6.02"),
    ("3 1/2", "1"),
    ("3 1/2", "3"),
    ("100", "100% sure: 10"),
    ("10", "100% sure: 10"),
    ("12", "12 is wrong"),
    ("4", "4 or 5"),
    ("4", "not 4"),
    ("4", "4 thousand"),
    ("4", "4 dozen"),
    ("5 km", "5 m"),
    ("12 cm^2", "12 cm"),
    ("0.1%", "10%"),
    ("1/3", "0.333"),
    ("0.28", "28"),
    ("28", "28/100"),
    ("2", "AZYUK2A"),
    ("3 100", "1/2"),
    ("red", "blue"),
    ("no", "on"),
    ("silent", "listen"),
    ("4", "4" * 3000),
    ("4", "four hundred"),
    ("1e999999999", "1e999999998"),
]


@pytest.mark.parametrize(("truth", "given_"), EQUAL)
def test_equal(truth: str, given_: str) -> None:
    assert decide(truth, given_) is True


@pytest.mark.parametrize(("truth", "given_"), DIFFERENT)
def test_different(truth: str, given_: str) -> None:
    assert decide(truth, given_) is not True
    assert not exact(truth, given_)


@pytest.mark.parametrize(
    ("truth", "given_"),
    [p for p in DIFFERENT if p[1] not in ("2x+1", "2x", "2 x", "4 or 5", "1e999999998")],
)
def test_what_rules_refuse_is_not_handed_on(truth: str, given_: str) -> None:
    assert decide(truth, given_) is False


def test_words_of_the_question_are_units() -> None:
    question = "How many red apples does Tom have after he eats two apples? Is it a dozen?"
    assert exact("4", "4 apples", question)
    assert exact("4", "4 red apples", question)
    assert exact("4", "4 apple", question)
    assert not exact("4", "4 pears", question)
    assert not exact("4", "4 dozen", question)
    assert not exact("4", "4 apples")


def test_what_rules_cannot_decide_goes_to_math_verify_cleaned() -> None:
    assert decide("$5!$", "\\boxed{120}.") == (("5!", "120"),)
    assert decide("(5!, 1)", "(120, 1)") == (("5!", "120"),)
    assert decide("(5!, 1)", "(120, 2)") is False


OPTIONS = ["red", "blue", "green", "dark red"]


@pytest.mark.parametrize(
    "given_",
    [
        *(
            "B",
            "b",
            "(B)",
            "B.",
            "B)",
            "[B]",
            "option B",
            "Option (B)",
            "$B$",
            "\\boxed{B}",
            "\\text{B}",
        ),
        *(
            "blue",
            "Blue",
            "Blue.",
            "B. blue",
            "(B) Blue",
            "B: blue",
            "B) blue",
            "B - blue",
            "\\text{blue}",
        ),
        *("B\n", "The answer is B", "answer: B"),
    ],
)
def test_the_right_option_by_letter_or_by_whole_text(given_: str) -> None:
    assert choice(OPTIONS, "blue", given_) is True


@pytest.mark.parametrize(
    "given_", ["A", "(C)", "red", "C. green", "option D", "dark red", "D", "B. red"]
)
def test_another_option_is_wrong(given_: str) -> None:
    assert choice(OPTIONS, "blue", given_) is False


@pytest.mark.parametrize(
    "given_",
    ["Because of X", "B because of X", "A or B", "E", "b l u e", "bluer", "AB", ""],
)
def test_what_names_no_option_is_no_choice(given_: str) -> None:
    assert choice(OPTIONS, "blue", given_) is None


def test_known_wrong_accepts_for_option_b() -> None:
    options = ["Green", "Red"]
    assert choice(options, "Red", "Because of X") is None
    assert choice(options, "Red", "Blue") is None
    assert decide("Red", "Because of X") is False
    assert decide("Red", "Blue") is False


def test_options_that_are_numbers_or_letters() -> None:
    assert choice(["62", "46", "39", "20"], "20", "20.0") is True
    assert choice(["62", "46", "39", "20"], "20", "D") is True
    assert choice(["62", "46", "39", "20"], "20", "C") is False
    letters = ["C", "A", "B", "D"]
    assert choice(letters, "A", "A") is True, "an option's text goes before its letter"
    assert choice(letters, "C", "A") is False


def test_words_are_no_mathematics() -> None:
    assert all(is_prose(text) for text in ("no", "red circle", "12 is wrong answer", "not 4"))
    assert not any(is_prose(text) for text in ("x", "\\sqrt{2}", "2\\sin(x)", "3ab"))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gets_a_verdict_and_cleaning_settles(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    decide("4", text)
    choice(OPTIONS, "blue", text)
    number_of(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_are_equal_only_to_themselves(left: int, right: int) -> None:
    assert exact(str(left), f"{left:,}")
    assert exact(f"${left:,}.00$", str(left))
    if left != right:
        assert not exact(str(left), str(right))


def gsm8k(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "gsm8k/test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["question"], row["answer"].split("####")[1].strip()) for row in rows]


def mawps(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "mawps/test.jsonl").read_text().splitlines()]
    return [(row["question"], row["answer"]) for row in rows]


@pytest.mark.parametrize("read", [gsm8k, mawps])
def test_real_answers_match_themselves_and_no_other(read: object, shared_data: Path) -> None:
    rows = read(shared_data)  # type: ignore[operator]
    picks = random.Random(7).choices([answer for _, answer in rows], k=len(rows))
    for (question, answer), other in zip(rows, picks, strict=True):
        for notation in (
            answer,
            f" {answer}\n",
            f"${answer}$",
            f"{answer}.",
            f"\\boxed{{{answer}}}",
        ):
            assert decide(answer, notation, question) is True
        plain = float(answer.replace(",", "")), float(other.replace(",", ""))
        same = abs(plain[0] - plain[1]) <= 1e-9 * max(map(abs, plain))
        assert decide(answer, other, question) is same


def test_puzzlevqa_options(shared_data: Path) -> None:
    count = 0
    for path in sorted((shared_data / "puzzlevqa").glob("*.json")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            options, truth = [str(o) for o in row["options"]], str(row["answer"])
            right = options.index(truth)
            for place, option in enumerate(options):
                for named in (
                    option,
                    "ABCD"[place],
                    f"({'abcd'[place]}) {option}",
                    f"{'ABCD'[place]}. {option}",
                ):
                    assert choice(options, truth, named) is (place == right), (
                        options,
                        truth,
                        named,
                    )
                    count += 1
    assert count > 10_000
