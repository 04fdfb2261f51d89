"""A report's facts to one HTML page that loads nothing and runs no script.

Whatever a row, a model or a recipe says is text: the template escapes every value, pictures are written as trees, and a
content security policy forbids scripts and network even if both were to fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from omr_runtime.report import chart
from omr_runtime.report.axis import number_text
from omr_runtime.report.chart import Mark
from omr_runtime.report.comparison import Versus
from omr_runtime.report.facts import FIRST, Facts, Funnel, Mixed, Trained
from omr_runtime.report.graph import Box, graph
from omr_runtime.report.tournament import Cell, cell_of
from omrlang.plan import PlanStage

HERE = Path(__file__).parent
SECTIONS = (
    ("graph", "Recipe", ""),
    ("funnel", "Funnel", ""),
    ("sources", "Sources", "mixes"),
    ("curves", "Training", "trained"),
    ("accuracy", "Accuracy", "marks"),
    ("tournament", "Tournament", "columns"),
    ("estimates", "Estimates", "guesses"),
    ("rows", "Rows", "examples"),
    ("diff", "Diff", "against"),
)
"""Anchor, name, and the value of the page without which the section is not there."""


@dataclass(frozen=True, slots=True)
class Against:
    """Another run: its name, the text of the diff from it to this one, and evals of the same name on the same items."""

    name: str
    text: str
    versus: tuple[Versus, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    cell: Cell


def page(facts: Facts, against: Against | None = None) -> str:
    """The whole page as text."""
    jinja = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"count": lambda value: f"{value:,}", "short": number_text}
    values = _values(facts, against)
    return jinja.get_template("page.html.j2").render(values)


def _values(facts: Facts, against: Against | None) -> dict[str, Any]:
    plan, table = facts.ran.plan, facts.tournament
    values: dict[str, Any] = {
        "title": plan.recipe,
        "because": plan.because,
        "headline": headline(facts),
        "meta": _meta(facts),
        "css": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "tiles": _tiles(facts),
        "graph": Markup(graph([_box(facts, stage) for stage in plan.stages])),
        "funnels": list(_funnels(facts.funnels)),
        "mixes": [_mix(mixed) for mixed in facts.mixes],
        "trained": [_curves(trained) for trained in facts.trained],
        "marks": _marks(facts),
        "judged": [
            (stage.name, facts.ran.entries[stage.name].get("metrics", {}))
            for stage in facts.ran.evals
        ],
        "versus": facts.versus,
        "table": table,
        "columns": table.columns,
        "guesses": [
            (guess, Markup(chart.span(guess.lo, guess.mid, guess.hi, guess.actual)))
            for guess in facts.guesses
        ],
        "inside": sum(guess.inside for guess in facts.guesses),
        "examples": facts.examples,
        "outcomes": Counter(example.outcome for example in facts.examples).items(),
        "against": against,
        "not_in_it": ", ".join(plan.not_in_it),
    }
    sections = [(anchor, name) for anchor, name, key in SECTIONS if not key or values[key]]
    return values | {"sections": sections}


# ---- the head --------------------------------------------------------------------------------------------------


def headline(facts: Facts) -> str:
    """What came of it, in one sentence: the last eval, and how it stands to the one before on the same items."""
    tiles = _tiles(facts)
    if not tiles:
        done = sum(facts.ran.is_done(stage.name) for stage in facts.ran.plan.stages)
        return f"{done} of {len(facts.ran.plan.stages)} stages are finished; no eval is."
    last = tiles[-1]
    text = f"“{last.name}”: {last.cell.value:.1f}% right"
    if last.cell.lo is not None and last.cell.hi is not None:
        text += f" (95% interval {last.cell.lo:.1f}–{last.cell.hi:.1f}%)"
    before = [it for it in facts.versus if it.b == last.name]
    if before:
        gap = before[-1].found
        ends = f"{100 * gap.lo:+.1f} … {100 * gap.hi:+.1f}"
        text += f", {100 * gap.difference:+.1f} points ({ends}) against “{before[-1].a}” on the same {gap.num_items:,} items"
    return f"{text}."


def _meta(facts: Facts) -> str:
    plan = facts.ran.plan
    parts = [f"seed {plan.seed}", f"omr {plan.omr_version}"]
    for ident, started, ended, code in facts.runs:
        took = took_text(started, ended) if ended else "not ended"
        parts.append(f"run {ident}, {took}{'' if code in (0, None) else f', exit {code}'}")
    return " · ".join(parts)


def took_text(started: str, ended: str) -> str:
    """How long a run took, from two times of day.

    >>> took_text("2026-01-01T00:00:00+00:00", "2026-01-01T00:02:11+00:00")
    '2 min 11 s'
    """
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _tiles(facts: Facts) -> list[Tile]:
    """Each finished eval as a whole."""
    found = []
    for stage in facts.ran.evals:
        metrics = facts.ran.entries[stage.name].get("metrics", {})
        if "accuracy" in metrics:
            found.append(Tile(stage.name, cell_of(metrics)))
    return found


# ---- sections --------------------------------------------------------------------------------------------------


def _box(facts: Facts, stage: PlanStage) -> Box:
    entry = facts.ran.entries.get(stage.name, {})
    if not facts.ran.is_done(stage.name):
        text = str(entry.get("status", "not run"))
    elif stage.spec.kind in ("sft", "rl"):
        text = f"{entry.get('steps_done') or 0:,} steps"
    elif stage.spec.kind == "eval" and "accuracy" in entry.get("metrics", {}):
        text = f"{100 * entry['metrics']['accuracy']:.1f}%"
    else:
        text = f"{entry.get('num_kept', 0):,} rows"
    return Box(stage.name, stage.spec.kind, text, stage.parents)


def _funnels(funnels: tuple[Funnel, ...]) -> Iterator[dict[str, Any]]:
    most = max((funnel.num_in for funnel in funnels), default=0)
    for funnel in funnels:
        dropped = funnel.num_in - funnel.num_kept
        parts = [("kept", funnel.num_kept, "kept"), ("dropped", dropped, "dropped")]
        yield {"fact": funnel, "bar": Markup(chart.bar(parts, most))}


def _mix(mixed: Mixed) -> dict[str, Any]:
    most = max((share.rows for share in mixed.sources), default=0)
    bars = [
        (share, Markup(chart.bar([(share.source, share.rows, "share")], most)))
        for share in mixed.sources
    ]
    return {"fact": mixed, "sources": bars}


def _curves(trained: Trained) -> dict[str, Any]:
    """Pictures of what moved, each with the mean of its last tenth; what never moved in words."""
    moved = [curve for curve in trained.curves if len(set(curve.values)) > 1]
    flat = [
        f"{curve.label} {number_text(curve.values[0])}"
        for curve in trained.curves
        if curve not in moved
    ]
    drawn = [
        (
            curve.label,
            number_text(curve.last_mean),
            Markup(chart.curve(curve.label, curve.steps, curve.values)),
        )
        for curve in moved
    ]
    parts = {"first": drawn[:FIRST], "more": drawn[FIRST:], "flat": ", ".join(flat)}
    return {"stage": trained.stage, "kind": trained.kind, **parts}


def _marks(facts: Facts) -> Markup | None:
    marks = [
        Mark(tile.name, tile.cell.tokens, tile.cell.value, tile.cell.lo, tile.cell.hi)
        for tile in _tiles(facts)
        if tile.cell.tokens is not None and tile.cell.lo is not None and tile.cell.hi is not None
    ]
    return Markup(chart.accuracy_against_tokens(marks)) if marks else None
