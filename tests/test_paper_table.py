"""The published recipe planned, beside what its paper and release print: the table of ``docs/openmmreasoner.md``.

``pytest --update`` writes the table's lines anew; the change is then reviewed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from omrlang.cli.figures import whole
from omrlang.compiler import load
from omrlang.estimate.opened import Number, numbers
from omrlang.plan import Plan
from omrlang.planning import make_plan

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "pipelines" / "openmmreasoner" / "openmmreasoner.omr"
PAGE = ROOT / "docs" / "openmmreasoner.md"
HEAD = "| figure | published | planned | origin | opens with `omr explain … ` |\n| --- | --- | --- | --- | --- |\n"


@cache
def planned(*overrides: str) -> Plan:
    recipe, found = load(RECIPE, list(overrides))
    assert recipe is not None, found
    return make_plan(recipe, Path("nowhere"), RECIPE, found, overrides)


@dataclass(frozen=True)
class Line:
    """``value`` and ``within`` are what the test holds: the published number and how far the plan's middle may be off;
    without a value the plan's own must be unknown or assumed, ``held`` says what else was looked at."""

    figure: str
    published: str
    metric: str
    value: float | None = None
    within: float = 0.0
    overrides: tuple[str, ...] = ()
    in_range: bool = False

    @property
    def number(self) -> Number:
        return numbers(planned(*self.overrides))[self.metric]

    def text(self) -> str:
        number = self.number
        told = f"unknown: {number.formula}" if number.mid is None else whole(number)
        extra = "".join(f" `--set {item}`" for item in self.overrides)
        cells = (self.figure, self.published, told, number.origin, f"`{self.metric}`{extra}")
        return f"| {' | '.join(cells)} |\n"


LINES = [
    Line("questions", "about 103k (§3.1)", "questions.rows", 103_000, 0.01),
    Line("requests to the teacher", "824k: 8 x 103k (§3.3)", "distil.rows", 824_000, 0.01),
    Line("traces accepted, by the rate of 8 samples", "583k, 70.8% (§3.3)", "accepted.rows", 583_000, 0.01),
    Line(
        "traces accepted, by the rate of one sample", "59k of 103k are 57.3% (§3.3): 474k of 827k",
        "accepted.rows", 474_000, 0.01, ("accepted.assume.keep=57.3%",),
    ),
    Line("rows of supervised training", "874k, exactly 874,357 (§3.5, release)", "sft_data.rows", 874_357, 0.01),
    Line("rows with an image", "89.5% (project page)", "cold_start.image_rows", 0.895, 0.001),
    Line("steps of supervised training", "4,300 (table S1)", "cold_start.steps", 4_300),
    Line("warm-up steps", "430: 10% (table S1)", "cold_start.warmup", 430),
    Line("token slots", "at most 8.45 G: 4,300 x 32 x 61,440", "cold_start.tokens", 8.454e9, 0.001),
    Line("passes over the rows", "not printed; 4 to 8 by its lengths", "cold_start.epochs", in_range=True, value=6.2),
    Line("supervised training", "not printed; about 30 h on 32 A800 at 35%", "cold_start.seconds", 30 * 3600.0, in_range=True),
    Line("rows of reinforcement", "74,971 (project page)", "rl_data.rows", 74_971),
    Line("steps of one pass over them", "585, the last batch dropped (585.7)", "reasoner.steps_per_epoch", 585, 0.002),
    Line("steps of reinforcement", "1,232 (table S1)", "reasoner.steps", 1_232),
    Line("rollouts", "2,523,136: 1,232 x 128 x 16", "reasoner.rollouts", 2_523_136),
    Line("tokens written in reinforcement", "not printed; 6.8 to 12.6 G by its figure 4", "reasoner.response_tokens", 6.8e9, in_range=True),
    Line("reinforcement", "not printed", "reasoner.seconds"),
    Line("of which writing, waiting for the longest answer", "not printed", "reasoner.seconds_generation"),
    Line(
        "checkpoints as released: each 16 steps, all kept", "not printed; 76 on the way, of 99.5 GB, are 7.6 TB",
        "reasoner.checkpoints", 7.56e12, 0.01, ("reasoner.checkpoint.keep=100",),
    ),
    Line("rows of TQA", "not printed", "sources.tqa.rows"),
    Line("the teacher's hours", "not printed", "distil.seconds"),
    Line("calls of the judge while traces are accepted", "not printed", "accepted.judge_calls"),
    Line("dollars", "not printed", "total.usd"),
]  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.figure)
def test_plan_and_paper_agree(line: Line) -> None:
    number = line.number
    if line.value is None:
        assert number.origin in ("declared", "assumed", "unknown")
        return
    assert number.lo is not None
    assert number.mid is not None
    assert number.hi is not None
    if line.in_range:
        assert number.lo <= line.value <= number.hi
    else:
        assert float(number.mid) == pytest.approx(line.value, rel=line.within or 1e-12)


def test_the_traces_accepted_may_be_what_either_published_rate_gives() -> None:
    """583k is likely, since it is what was released; 59k of 103k at one sample would be 474k."""
    found = numbers(planned())["accepted.rows"]
    assert found.lo is not None
    assert found.mid is not None
    assert found.hi is not None
    assert found.lo <= 0.573 * 824_000 < 583_000 <= found.hi
    assert float(found.mid) == pytest.approx(583_000, rel=0.01)


def test_reinforcement_waits_for_the_longest_answers() -> None:
    parts = numbers(planned())["reasoner.seconds_generation"].made.parts
    mids = {name: float(part.mid or 0) for name, part in parts.items()}
    assert mids["tail"] * mids["steps"] * mids["rounds"] > 3 * mids["work"]
    whole_time = numbers(planned())["reasoner.seconds"].mid
    assert whole_time is not None
    assert mids["tail"] * mids["steps"] > 0.5 * float(whole_time)


def test_the_lint_tells_what_the_released_cadence_leaves_on_disk() -> None:
    found = planned("reasoner.checkpoint.keep=100").diagnostics
    assert any(item.code == "W110" and "7." in item.message for item in found)


def test_the_page_has_the_table(update: bool) -> None:
    table = HEAD + "".join(line.text() for line in LINES)
    text = PAGE.read_text()
    start = text.index(HEAD.partition("\n")[0])
    end = text.index("\n\n", start) + 1
    if update:
        PAGE.write_text(text[:start] + table + text[end:])
    else:
        assert text[start:end] == table
