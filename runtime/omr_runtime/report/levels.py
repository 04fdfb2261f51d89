"""Arms of an ablation to pictures: the accuracy of each with its interval, and the figures of its trainings over their steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from itertools import chain

from omr_runtime import lineage
from omr_runtime.report.axis import axis
from omr_runtime.report.chart import BOTTOM, LEFT, RIGHT, TOP, curve, picture, put, svg
from omr_runtime.report.facts import Curve, trained
from omr_runtime.report.ran import Ran

WIDTH, HEIGHT = 620.0, 300.0
STYLE = """<style>svg { width: 100%; max-width: 40rem; font: 11px system-ui, sans-serif; fill: currentColor }
svg .grid { stroke: currentColor; opacity: .18 } svg .whisker, svg .join { stroke: currentColor; stroke-width: 1.5; fill: none }
svg .tick { text-anchor: middle } svg polyline { fill: none; stroke: currentColor } svg .raw { opacity: .25 }
svg .mean { stroke-width: 2 } .curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
figure { margin: 0 }</style>"""
Interval = tuple[float, float, float]
"""Accuracy with the ends of its interval, in 0 .. 1."""


def figures(scores: Mapping[str, Mapping[str, Interval]], runs: Mapping[str, Ran]) -> str:
    """HTML. ``scores`` are by arm and eval; ``runs`` one run of each arm, by the same names."""
    evals = dict.fromkeys(chain.from_iterable(scores.values()))
    charts = [
        _figure(
            name, levels(name, {arm: found[name] for arm, found in scores.items() if name in found})
        )
        for name in evals
    ]
    curves = [figure for arm, run in runs.items() for figure in _curves(arm, run)]
    return f'{STYLE}<h2>Accuracy</h2>{"".join(charts)}<h2>Training</h2><div class="curves">{"".join(curves)}</div>'


def levels(label: str, arms: Mapping[str, Interval]) -> str:
    """Arms side by side in their order, accuracy in percent upward with its interval."""
    root = picture(f"accuracy of {label} by arm", WIDTH, HEIGHT)
    up = axis([100 * end for one in arms.values() for end in one], HEIGHT - BOTTOM, TOP + 8, 5)
    for tick in up.ticks:
        put(root, "line", x1=LEFT, x2=WIDTH - RIGHT, y1=up.at(tick), y2=up.at(tick), css="grid")
        put(root, "text", f"{tick:g}%", x=LEFT - 6, y=up.at(tick) + 3.5, text_anchor="end")
    step = (WIDTH - RIGHT - LEFT) / len(arms)
    points = []
    for number, (name, (mean, lo, hi)) in enumerate(arms.items()):
        x = LEFT + step * (number + 0.5)
        points.append(f"{x:.1f},{up.at(100 * mean):.1f}")
        put(root, "line", x1=x, x2=x, y1=up.at(100 * lo), y2=up.at(100 * hi), css="whisker")
        dot = put(root, "circle", cx=x, cy=up.at(100 * mean), r=4)
        put(dot, "title", f"{name}: {mean:.1%} ({100 * lo:.1f}–{100 * hi:.1f})")
        put(root, "text", _short(name), x=x, y=HEIGHT - BOTTOM + 16, css="tick")
    put(root, "polyline", points=" ".join(points), css="join")
    return svg(root)


def _short(name: str) -> str:
    """The label of a variant, without its file."""
    return name.partition("[")[2].removesuffix("]") or name.rpartition("/")[2]


def _curves(arm: str, run: Ran) -> Iterator[str]:
    with lineage.read(run.state.lineage) as reader:
        for stage in run.plan.stages:
            if stage.spec.kind in ("sft", "rl") and run.is_done(stage.name):
                for found in trained(reader, stage).curves[:2]:
                    yield _figure(f"{_short(arm)} · {stage.name}: {found.label}", _drawn(found))


def _drawn(found: Curve) -> str:
    return curve(found.label, found.steps, found.values)


def _figure(caption: str, drawing: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
