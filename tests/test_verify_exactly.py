"""The rules against what decides elsewhere: SymPy, the main thread, real solutions, and answers made to waste time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from verify_parts import PROMPT, ask, condition

from omr_runtime.chat import response_text
from omr_runtime.verify.answers import clean, decide
from omr_runtime.verify.cascade import Cascade
from omr_runtime.verify.math import MathPool
from omr_runtime.verify.polynomials import same_polynomial

# ---- polynomials, against SymPy --------------------------------------------------------------------------------

NAMES = {"x": sympy.Symbol("x"), "y": sympy.Symbol("y"), "\\pi": sympy.pi}


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, sympy.Expr]:
    """LaTeX and what it means."""
    kind = draw(st.sampled_from(("number", "letter", "root") if depth == 0 else ("sum", "product", "power", "over", "group")))  # fmt: skip
    if kind == "number":
        k = draw(st.integers(0, 12))
        return str(k), sympy.Integer(k)
    if kind == "letter":
        name = draw(st.sampled_from(sorted(NAMES)))
        return f"{name} ", NAMES[name]
    if kind == "root":
        k = draw(st.integers(0, 40))
        return f"\\sqrt{{{k}}}", sympy.sqrt(k)
    left = draw(expressions(depth - 1))
    if kind == "power":
        k = draw(st.integers(0, 3))
        return f"({left[0]})^{k}", left[1] ** k
    if kind == "over":
        k = draw(st.integers(1, 9))
        return f"\\frac{{{left[0]}}}{{{k}}}", left[1] / k
    if kind == "group":
        return f"({left[0]})", left[1]
    right = draw(expressions(depth - 1))
    if kind == "sum":
        sign = draw(st.sampled_from("+-"))
        second = right[1] if sign == "+" else -right[1]
        return f"({left[0]}) {sign} ({right[0]})", left[1] + second
    return f"({left[0]})({right[0]})", left[1] * right[1]


@settings(max_examples=150, deadline=None)
@given(expressions(), expressions(), st.integers(-1, 1))
def test_polynomials_are_equal_where_sympy_says_so(
    left: tuple[str, sympy.Expr], right: tuple[str, sympy.Expr], off: int
) -> None:
    expanded = sympy.latex(sympy.expand(left[1]) + off).replace("\\left", "").replace("\\right", "")
    for text, meaning in (right, (expanded, left[1] + off)):
        found = same_polynomial(left[0], text)
        if found is not None:
            assert found is bool(sympy.expand(left[1] - meaning) == 0), (left[0], text)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("x^2+3x+2", "(x+1)(x+2)", True),
        ("2\\sqrt{2}", "\\sqrt{8}", True),
        ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}", True),
        ("\\frac{\\pi}{2}", "\\pi/2", True),
        ("2x+1", "2", False),
        ("2x", "2y", False),
        ("\\sqrt{2}", "\\sqrt{3}", False),
        ("4^3", "64", True),
        ("\\sqrt{2}", "1.41421356", None),
        ("\\pi", "3.14", None),
        ("1/2x", "\\frac{1}{2x}", None),
        ("x^10", "x^{10}", None),
        ("3 1/2", "7/2", None),
        ("f(2)", "2f", None),
        ("e^2", "e \\cdot e", None),
        ("xy", "yx", None),
        ("5!", "120", None),
        ("9^{9^{9^9}}", "1", None),
        ("(x+y+1)^{20}", "1", None),
        ("((((((1", "1", None),
        ("\\frac{1}{0}", "1", None),
        ("2^{999}", "1", None),
    ],
)
def test_what_polynomials_say(left: str, right: str, same: bool | None) -> None:
    assert same_polynomial(left, right) is same


# ---- the main thread -------------------------------------------------------------------------------------------

PAIRS = [
    ("4", "4.0"), ("4", "5"), ("(x+1)^2", "x^2+2x+1"), ("5!", "120"), ("5!", "121"), ("\\{1, 2\\}", "\\{2, 1\\}"),
    ("\\sin(0)", "0"), ("1 < x < 2", "(1, 2)"), ("2", "2x+1"), ("8:30", "8"), ("x=4", "$4$"), ("[1, 2]", "[1, 2)"),
    ("\\frac{1}{x}", "x^{-1}"), ("\\sqrt{2}", "1.41421356"), ("Blue", "blue"), ("10\\%", "0.1"), ("3", "\\log_2 8"),
]  # fmt: skip


def verdicts(pairs: Sequence[tuple[str, str]]) -> list[tuple[object, object]]:
    """Value and reason of each pair, with nothing remembered."""
    clean.cache_clear()
    decide.cache_clear()
    rows = [
        {
            "id": str(number),
            "answer": truth,
            "question": "",
            "response": response_text({"thinking": "so", "final_answer": answer}, PROMPT),
        }
        for number, (truth, answer) in enumerate(pairs)
    ]
    expression = condition(ask("answer_matches"), "answer_matches")
    with Cascade(expression, PROMPT, math=MathPool(2)) as cascade:
        return [(one.value, one.verdicts[0]["reason"]) for one in cascade.evaluate(rows)]


def test_no_rule_differs_off_the_main_thread() -> None:
    here, there = verdicts(PAIRS), list[tuple[object, object]]()
    threads = [threading.Thread(target=lambda: there.extend(verdicts(PAIRS)))]
    for thread in threads:
        thread.start()
        thread.join()
    assert there == here
    assert {value for value, _ in here} == {True, False}
    assert {reason for _, reason in here} > {"exact", "math"}, (
        "rules and math-verify both decided some"
    )


# ---- real solutions --------------------------------------------------------------------------------------------


def gsm8k(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "gsm8k" / name).read_text().splitlines()]


def test_gsm8ks_own_solutions_all_verify(shared_data: Path) -> None:
    """As a teacher would have given them: the worked solution as thinking, its last line as the answer."""
    rows = []
    for name in ("train.jsonl", "test.jsonl"):
        for number, row in enumerate(gsm8k(shared_data, name)):
            thinking, _, answer = row["answer"].rpartition("\n#### ")
            text = response_text({"thinking": thinking, "final_answer": answer}, PROMPT)
            rows.append(
                {
                    "id": f"{name}:{number}",
                    "question": row["question"],
                    "answer": answer,
                    "response": text,
                }
            )
    assert len(rows) == 8_792
    expression = condition(ask("answer_matches"), "answer_matches")
    with Cascade(expression, PROMPT) as cascade:
        wrong = [one.row["id"] for one in cascade.evaluate(rows) if one.value is not True]
    assert wrong == []


# ---- answers made to waste time --------------------------------------------------------------------------------

BOMBS = [
    "9^{9^{9^9}}",
    "10^{10^{10}}",
    "10^{10^{10^{10}}}",
    "\\int e^{x^2} \\sin(x^3) dx",
    "\\sum_{n=1}^{10000000} \\frac{1}{n}",
    "{" * 900 + "1" + "}" * 900,
    "(" * 900 + "1" + ")" * 900,
    " ".join(map(str, range(350))),
    "+".join(["x"] * 900),
    "(x+y+z+w)^{20}(x-y-z-w)^{20}",
    "\\sqrt{" * 150 + "2" + "}" * 150,
    "1000000!",
    "\\binom{10000000}{5000000}",
    "4 " * 36_000,
    "\\{" + ",".join(["1"] * 900) + "\\}",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda text: text[:24])
@pytest.mark.parametrize("truth", ["x^2+1", "\\{1, 2\\}"])
def test_no_answer_costs_more_than_its_deadline(truth: str, bomb: str) -> None:
    start = time.process_time()
    decision = decide(truth, bomb)
    assert time.process_time() - start < 0.5, "rules are bounded by themselves"
    if isinstance(decision, bool):
        assert decision is False
        return
    limit_s = 1.0
    with MathPool(1, cpu_limit_s=limit_s, wall_limit_s=20.0) as pool:
        pool.check([("1", "2")])
        begun = time.monotonic()
        found = pool.check(decision)
        took = time.monotonic() - begun
    assert not all(one.ok for one in found)
    assert took < 20.0 * len(decision) + 2.0
    assert pool.check([("\\sin(0)", "0")])[0].ok, "the next pair is answered"
    pool.close()
