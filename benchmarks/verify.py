"""Ten thousand pairs of a true answer and a given one through the cascade, beside math-verify in a loop.

    python benchmarks/verify.py [PAIRS]

The stream is fixed: groups of eight samples of one question, as a filter sees them, whose truths are numbers, fractions,
percentages, expressions, points, sets and angles, and whose answers are right in the same notation, right in another, or wrong. Its shares
of repeats and of plain matches are printed. The loop is what a user would write: parse both sides, verify, math-verify's own
time limits; it has imported SymPy before, and so have the cascade's workers, but for the line
that says so; neither has seen a pair of the stream. Without the cache means: each different pair once, so that nothing can be
remembered. Both agree on the marked truth for a share that is printed too: speed is worth nothing where verdicts are wrong.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from omr_runtime.chat import response_text
from omr_runtime.verify.answers import clean
from omr_runtime.verify.cascade import Cascade
from omr_runtime.verify.math import MathPool
from omrlang.expressions import row_expression
from omrlang.types import Call, Prompt

Pair: TypeAlias = tuple[str, str, bool]
"""The true answer, the given one, and whether it is right."""
Judged: TypeAlias = Callable[[Sequence[Pair]], list[bool]]

GROUP = 8
PROMPT = Prompt(name="think", thinking="think", answer="answer")


# ---- the stream ------------------------------------------------------------------------------------------------


def _integer(rng: random.Random) -> tuple[str, list[str], list[str]]:
    k = rng.randrange(2, 5_000)
    return (
        str(k),
        [f"${k}$", f"\\boxed{{{k}}}", f"{k}.0", f"{k:,}"],
        [str(k + d) for d in (-1, 1, 10)],
    )


def _fraction(rng: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = rng.randrange(1, 9), rng.choice((2, 4, 5, 8, 10))
    wrong = [f"\\frac{{{a}}}{{{b + 1}}}", f"\\frac{{{a + 1}}}{{{b}}}"]
    return f"\\frac{{{a}}}{{{b}}}", [f"{a}/{b}", f"{a / b:g}"], wrong


def _percent(rng: random.Random) -> tuple[str, list[str], list[str]]:
    k = rng.randrange(1, 100)
    return f"{k}\\%", [f"{k}%", f"{k} percent"], [f"{k + 1}%", f"{k - 1}%"]


def _polynomial(rng: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = rng.randrange(1, 9), rng.randrange(1, 9)
    right = [f"(x+{a})(x+{b})", f"{a * b} + {a + b}x + x^2"]
    return f"x^2+{a + b}x+{a * b}", right, [f"x^2+{a + b + 1}x+{a * b}", f"(x+{a})(x-{b})"]


def _root(rng: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = rng.randrange(2, 9), rng.choice((2, 3, 5, 7))
    return (
        f"{a}\\sqrt{{{b}}}",
        [f"\\sqrt{{{a * a * b}}}"],
        [f"\\sqrt{{{a * a * b + 1}}}", f"{a * b}"],
    )


def _point(rng: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = rng.randrange(9), rng.randrange(9)
    return f"({a}, {b})", [f"({a},{b})", f"({a}.0, {b}.0)"], [f"({b}, {a + 1})", str(b)]


def _set(rng: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = rng.randrange(9), rng.randrange(9, 20)
    return f"\\{{{a}, {b}\\}}", [f"\\{{{b}, {a}\\}}"], [f"\\{{{a}, {b + 1}\\}}"]


def _angle(rng: random.Random) -> tuple[str, list[str], list[str]]:
    k, n = rng.choice((("\\frac{1}{2}", 6), ("\\frac{\\sqrt{3}}{2}", 3), ("1", 2)))
    return f"\\sin(\\frac{{\\pi}}{{{n}}})", [k], [f"\\cos(\\frac{{\\pi}}{{{n + 2}}})"]


OTHER_ANGLES = (
    (r"\sin(\frac{\pi}{4})", r"\frac{\sqrt{2}}{2}", True),
    (r"\sin(\frac{\pi}{4})", r"\cos(\frac{\pi}{7})", False),
)
"""What SymPy makes at first use is made with these, of which the stream has none."""

KINDS = (
    (_integer, 60),
    (_fraction, 12),
    (_percent, 6),
    (_polynomial, 8),
    (_root, 5),
    (_point, 5),
    (_set, 2),
    (_angle, 2),
)
"""With how many of a hundred questions ask for such an answer."""


def stream(count: int, seed: int = 1) -> list[Pair]:
    """Six of ten samples are right, seven of ten of those in the notation of the truth."""
    rng = random.Random(seed)
    kinds, weights = zip(*KINDS, strict=True)
    pairs: list[Pair] = []
    while len(pairs) < count:
        truth, right, wrong = rng.choices(kinds, weights)[0](rng)
        for _ in range(GROUP):
            if rng.random() < 0.6:
                given = truth if rng.random() < 0.7 else rng.choice(right)
                pairs.append((truth, given, True))
            else:
                pairs.append((truth, rng.choice(wrong), False))
    return pairs[:count]


# ---- the two ---------------------------------------------------------------------------------------------------


@contextmanager
def cascade() -> Iterator[Judged]:
    """As a filter asks: whole responses, their format read, rules, math-verify in workers."""
    expression = row_expression(
        Call(fn="answer_matches"), "answer_matches", "bool", ["answer_matches"]
    )
    with Cascade(expression, PROMPT, math=MathPool(os.cpu_count() or 1)) as opened:
        yield lambda pairs: [outcome.value is True for outcome in opened.evaluate(rows(pairs))]


def rows(pairs: Sequence[Pair]) -> Iterator[dict[str, str]]:
    """Each pair as a sample of a stage."""
    for number, (truth, given, _) in enumerate(pairs):
        response = response_text({"thinking": "so", "final_answer": given}, PROMPT)
        yield {"id": str(number), "answer": truth, "question": "", "response": response}


def loop(pairs: Sequence[Pair]) -> list[bool]:
    from math_verify import parse, verify

    return [bool(verify(parse(f"${truth}$"), parse(f"${given}$"))) for truth, given, _ in pairs]


def timed(run: Judged, pairs: Sequence[Pair]) -> tuple[float, float]:
    """Pairs a second, and the share of verdicts that are as marked."""
    start = time.perf_counter()
    found = run(pairs)
    seconds = time.perf_counter() - start
    agreed = sum(value is right for value, (_, _, right) in zip(found, pairs, strict=True))
    return len(pairs) / seconds, agreed / len(pairs)


def main(count: int) -> None:
    logging.disable(logging.CRITICAL)
    pairs = stream(count)
    different = list(dict.fromkeys(pairs))
    plain = sum(clean(truth) == clean(given) for truth, given, _ in pairs) / count
    print(
        f"{count:,} pairs, {os.cpu_count()} cores: {1 - len(different) / count:.0%} repeat an earlier one, {plain:.0%} are "
        f"equal once notation is off, {sum(right for *_, right in pairs) / count:.0%} are right"
    )
    others = [*(pair for pair in stream(800, seed=2) if pair not in set(pairs)), *OTHER_ANGLES]
    for name, given in (("whole stream", pairs), ("without the cache", different)):
        print(f"{name} ({len(given):,} pairs)")
        loop(others)  # SymPy's imports, and what it makes at first use, are nobody's work
        theirs = timed(loop, given)
        with cascade() as run:
            cold = timed(run, given)
        with cascade() as run:
            run(others)
            ours = timed(run, given)
        found = {"cascade": ours, "with its workers' start": cold, "math-verify in a loop": theirs}
        for label, (rate, right) in found.items():
            times = f"{rate / theirs[0]:5.1f} times"
            print(f"  {label:24} {rate:9,.0f} pairs/s {times}   {right:.1%} as marked")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
