"""A finished run to its result table: rows in, kept and dropped for each stage, and what each eval measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from omrlang.plan import Plan, PlanStage
from omrlang.schema import Eval
from omrlang.shown import shown_aggregate
from omrlang.types import Aggregate


def print_result(
    plan: Plan, index: dict[str, Any], executed: Sequence[str], out: TextIO | None = None
) -> None:
    """Both tables; a stage that was not run this time is marked cached."""
    from rich.console import Console

    console = Console(file=out, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(
            file=out, highlight=False, markup=False, emoji=False, width=max(console.width, 120)
        )
    console.print(_stages(plan, index, set(executed)))
    evals = [stage for stage in plan.stages if stage.spec.kind == "eval"]
    if evals:
        console.print(_evals(evals, index))
    watched = [stage for stage in plan.stages if _looks(stage, index)]
    if watched:
        console.print(_watches(watched, index))


def _stages(plan: Plan, index: dict[str, Any], executed: set[str]) -> Any:
    table = _table("stage", ("rows in", "kept", "dropped", "seconds"), "")
    for stage in plan.stages:
        entry = index["stages"].get(stage.fingerprint, {})
        note = "" if stage.name in executed else "cached"
        if entry.get("status") != "done":
            note = entry.get("status", "not run")
        table.add_row(
            stage.address,
            _count(entry.get("num_in")),
            _count(entry.get("num_kept")),
            _count(entry.get("num_dropped")),
            f"{entry['seconds']:.1f}" if "seconds" in entry else "-",
            note,
        )
    return table


def _evals(stages: Sequence[PlanStage], index: dict[str, Any]) -> Any:
    table = _table("eval", ("questions", "accuracy", "95% interval", "response tokens", "format"))
    for stage in stages:
        entry = index["stages"].get(stage.fingerprint, {})
        for name, metrics in _parts(stage, entry.get("metrics", {})):
            table.add_row(
                name,
                _count(metrics.get("num_questions", metrics.get("num_rows"))),
                _percent(metrics.get("accuracy")),
                _interval(metrics),
                _tokens(metrics.get("mean_response_tokens", entry.get("mean_response_tokens"))),
                _percent(metrics.get("format_rate", metrics.get("format_ok"))),
            )
    return table


def _looks(stage: PlanStage, index: dict[str, Any]) -> list[dict[str, Any]]:
    """What validation found, look after look."""
    metrics = index["stages"].get(stage.fingerprint, {}).get("metrics", {})
    found: list[dict[str, Any]] = [one for one in metrics.get("watch", ()) if "accuracy" in one]
    return found


def _watches(stages: Sequence[PlanStage], index: dict[str, Any]) -> Any:
    table = _table("watch", ("looks", "accuracy at first", "best", "at step", "last", "at step"))
    for stage in stages:
        looks = _looks(stage, index)
        best = max(looks, key=lambda look: look["accuracy"])
        table.add_row(
            stage.name,
            _count(len(looks)),
            _percent(looks[0]["accuracy"]),
            _percent(best["accuracy"]),
            _count(best["step"]),
            _percent(looks[-1]["accuracy"]),
            _count(looks[-1]["step"]),
        )
    return table


def _parts(stage: PlanStage, metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The eval as a whole, then by source where there are several; what is no plain mean says so."""
    spec = stage.spec
    assert isinstance(spec, Eval), "only evals are asked for"
    ways = {name: spec.aggregate_of(name) for name in spec.rows}
    only = next(iter(ways.values())) if len(set(ways.values())) == 1 else "mean"
    by_source = metrics.get("by_source") or {}
    parts = [
        (_counted(f"  {name}", ways.get(name, only)), values) for name, values in by_source.items()
    ]
    return [(_counted(stage.name, only), metrics), *(parts if len(parts) > 1 else [])]


def _counted(name: str, aggregate: Aggregate) -> str:
    return name if aggregate == "mean" else f"{name} ({shown_aggregate(aggregate)})"


def _interval(metrics: dict[str, Any]) -> str:
    low, high = metrics.get("accuracy_lo"), metrics.get("accuracy_hi")
    if low is None or high is None:
        return "-"
    return f"{100 * low:.1f} .. {100 * high:.1f}%"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _tokens(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _table(first: str, numbers: Sequence[str], *rest: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    for title in rest:
        table.add_column(title)
    return table
