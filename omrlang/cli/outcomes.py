"""What the state folder knows of both sides of a diff becomes its rows and results: only finished stages count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from omrlang.diff.report import Diff, Measured, ResultDiff, RowsDiff, RowsOfSource, Score
from omrlang.plan import Plan
from omrlang.state import read_index

if TYPE_CHECKING:
    from omr_runtime.report.arms import Gain, Outcome
    from omr_runtime.report.ran import Ran

KINDS_OF_ROWS = ("source", "mix", "sample", "filter")


def with_outcomes(found: Diff, a: Sequence[Plan], b: Sequence[Plan], state: Path) -> Diff:
    """The diff with what was measured; ``a`` and ``b`` are the plans of each side, one a seed.

    Nothing heavy is loaded where nothing was run. RunError where the lineage cannot be read."""
    if not read_index(state).stages or not (state / "lineage.duckdb").exists():
        return found
    from omr_runtime.report.ran import of_plan
    from omr_runtime.store import State

    folder = State(state)
    ran_a, ran_b = ([of_plan(folder, plan) for plan in plans] for plans in (a, b))
    rows = tuple(_rows(found, ran_a[0], ran_b[0]))
    return found.model_copy(update={"rows": rows, "results": tuple(_results(found, ran_a, ran_b))})


def scores(plans: Sequence[Plan], state: Path) -> tuple[Score, ...]:
    """What every eval of a recipe measured, over its seeds."""
    from omr_runtime.report.arms import outcome
    from omr_runtime.report.ran import of_plan
    from omr_runtime.store import State

    runs = [of_plan(State(state), plan) for plan in plans]
    names = [stage.name for stage in plans[0].stages if stage.spec.kind == "eval"]
    found = ((name, outcome(runs, name)) for name in names)
    return tuple(
        Score(stage=name, accuracy=_measured(one), tokens=one.tokens) for name, one in found if one
    )


def _rows(found: Diff, a: Ran, b: Ran) -> Iterator[RowsDiff]:
    """Stages that hold rows and are other artifacts, where both are finished."""
    from omr_runtime.report.overlap import overlap

    for stage in found.stages:
        if stage.kind not in KINDS_OF_ROWS or stage.effect not in ("changed", "downstream"):
            continue
        shared = overlap(a, b, stage.old_name or stage.name, stage.name)
        sources = tuple(
            RowsOfSource(
                source=source,
                common=one.common,
                only_a=one.only_a,
                only_b=one.only_b,
                why_not_b=one.why_not_b,
                why_not_a=one.why_not_a,
            )
            for source, one in sorted(shared.items())
        )
        if sources:
            yield RowsDiff(stage=stage.name, sources=sources)


def _results(found: Diff, a: Sequence[Ran], b: Sequence[Ran]) -> Iterator[ResultDiff]:
    from omr_runtime.report.arms import gain, outcome

    for stage in found.stages:
        if stage.kind != "eval" or stage.effect in ("added", "removed"):
            continue
        old = stage.old_name or stage.name
        one, other, gained = outcome(a, old), outcome(b, stage.name), gain(a, b, old, stage.name)
        if one is not None and other is not None and gained is not None:
            yield _result(found, stage.name, one, other, gained)


def _result(found: Diff, stage: str, a: Outcome, b: Outcome, gained: Gain) -> ResultDiff:
    points = 100 * gained.difference
    price = found.price
    untimed = price.untimed_a != price.untimed_b
    usd = None if untimed else _per_point(price.a.usd.mid, price.b.usd.mid, points)
    hours = None if untimed else _per_point(price.a.gpu_hours.mid, price.b.gpu_hours.mid, points)
    return ResultDiff(
        stage=stage,
        benchmark=stage,
        a=_measured(a),
        b=_measured(b),
        gain=Measured(
            mean=gained.difference,
            lo=gained.lo,
            hi=gained.hi,
            num=gained.num_questions,
            seeds=min(a.num_seeds, b.num_seeds),
        ),
        paired=gained.is_paired,
        tokens_a=a.tokens,
        tokens_b=b.tokens,
        usd_per_point=None if usd is None else f"{usd:.2f}",
        gpu_hours_per_point=hours,
    )


def _per_point(a: float | Decimal | None, b: float | Decimal | None, points: float) -> float | None:
    """What B costs more than A for each point that it is better; None where it is not better or costs no more."""
    if a is None or b is None or points <= 0 or b <= a:
        return None
    return (float(b) - float(a)) / points


def _measured(found: Outcome) -> Measured:
    return Measured(
        mean=found.accuracy,
        lo=found.lo,
        hi=found.hi,
        num=found.num_questions,
        seeds=found.num_seeds,
    )
