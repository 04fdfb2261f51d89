"""Numbers to pictures: curves, accuracy against tokens, and bars, as SVG that takes its colours from the page.

Trees of ``xml.etree`` are built, so that every text is escaped by the library that writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log10
from statistics import fmean
from xml.etree.ElementTree import Element, SubElement, tostring

from omr_runtime.report.axis import Axis, axis, number_text, tight_axis

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 34
MOST_POINTS = 400
"""A curve with more points than this is drawn through every k-th one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A model in the plane of tokens and accuracy, with the ends of its interval; both axes in their own units."""

    name: str
    x: float
    y: float
    lo: float
    hi: float


def picture(label: str, width: float = WIDTH, height: float = HEIGHT) -> Element:
    """An empty picture; ``label`` is what a screen reader says."""
    box = f"0 0 {width:g} {height:g}"
    root = Element("svg", {"viewBox": box, "role": "img", "aria-label": label})
    root.set("xmlns", "http://www.w3.org/2000/svg")
    return root


def svg(root: Element) -> str:
    return tostring(root, encoding="unicode")


def put(parent: Element, tag: str, text: str | None = None, **given: object) -> Element:
    """A child with attributes: numbers are cut to what can be seen, ``css`` is the class, ``_`` stands for ``-``."""
    made = SubElement(parent, tag)
    for name, value in given.items():
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        made.set("class" if name == "css" else name.replace("_", "-"), shown)
    made.text = text
    return made


# ---- curves ----------------------------------------------------------------------------------------------------


def curve(label: str, steps: Sequence[float], values: Sequence[float]) -> str:
    """One figure of a training run over its steps: each step thin, their moving mean bold."""
    root = picture(f"{label} over {len(steps)} steps")
    across = tight_axis(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    up = axis(values, HEIGHT - BOTTOM, TOP)
    _frame(root, across, up, "step", "")
    _path(root, across, up, steps, values, "raw")
    _path(root, across, up, steps, moving_mean(values), "mean")
    return svg(root)


def moving_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, a tenth of the run in all; at the ends of as many as there are.

    >>> moving_mean([1.0] * 20 + [2.0] * 20)[18:22]
    [1.2, 1.4, 1.6, 1.8]
    """
    half = len(values) // 20
    return [fmean(values[max(0, at - half) : at + half + 1]) for at in range(len(values))]


def _path(
    root: Element, across: Axis, up: Axis, xs: Sequence[float], ys: Sequence[float], css: str
) -> None:
    every = -(-len(xs) // MOST_POINTS)
    points = list(zip(xs, ys, strict=True))
    kept = points[::every] + (points[-1:] if (len(points) - 1) % every else [])
    line = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in kept)
    put(root, "polyline", points=line, css=css)


def _frame(root: Element, across: Axis, up: Axis, x_label: str, y_label: str) -> None:
    """Grid lines with their numbers, and what the axes count."""
    for tick in up.ticks:
        y = up.at(tick)
        put(root, "line", x1=across.start, x2=across.end, y1=y, y2=y, css="grid")
        put(root, "text", number_text(tick), x=across.start - 6, y=y + 3.5, text_anchor="end")
    for tick in across.ticks:
        put(root, "text", number_text(tick), x=across.at(tick), y=up.start + 15, css="tick")
    middle = (across.start + across.end) / 2
    put(root, "text", x_label, x=middle, y=up.start + 29, css="tick")
    if y_label:
        put(root, "text", y_label, x=across.start, y=up.end - 8, css="axis")


# ---- accuracy against tokens -----------------------------------------------------------------------------------


def accuracy_against_tokens(marks: Sequence[Mark]) -> str:
    """Mean response tokens to the right, accuracy in percent upward with its interval: better and shorter is up and left."""
    width, height = 520, 300
    root = picture("accuracy against mean response tokens", width, height)
    across = axis([0.0, *(mark.x for mark in marks)], LEFT, width - RIGHT, 5)
    up = axis([0.0, *(mark.hi for mark in marks)], height - BOTTOM, TOP + 14, 5)
    _frame(root, across, up, "mean response tokens", "accuracy, %")
    taken: list[tuple[float, float]] = []
    for number, mark in enumerate(marks):
        _mark(root, across, up, mark, number)
        _name(root, across, up, mark, taken)
    return svg(root)


def _mark(root: Element, across: Axis, up: Axis, mark: Mark, number: int) -> None:
    x, y = across.at(mark.x), up.at(mark.y)
    group = put(root, "g", css=f"s{number % 6}")
    span = f"{mark.y:.1f}% ({mark.lo:.1f}–{mark.hi:.1f}), {mark.x:.1f} tokens"
    put(group, "title", f"{mark.name}: {span}")
    put(group, "line", x1=x, x2=x, y1=up.at(mark.lo), y2=up.at(mark.hi), css="whisker")
    for end in (mark.lo, mark.hi):
        put(group, "line", x1=x - 4, x2=x + 4, y1=up.at(end), y2=up.at(end), css="whisker")
    put(group, "circle", cx=x, cy=y, r=5)


def _name(
    root: Element, across: Axis, up: Axis, mark: Mark, taken: list[tuple[float, float]]
) -> None:
    """Beside the mark, on the side with room, moved down where another name stands."""
    x, y = across.at(mark.x), up.at(mark.y)
    left = x > (across.start + across.end) * 0.6
    while any(abs(y - other) < 13 and abs(x - place) < 150 for place, other in taken):
        y += 13
    taken.append((x, y))
    text = f"{mark.name} {mark.y:.1f}%"
    anchor = "end" if left else "start"
    put(root, "text", text, x=x + (-9 if left else 9), y=y + 4, css="name", text_anchor=anchor)


# ---- bars ------------------------------------------------------------------------------------------------------


def bar(parts: Iterable[tuple[str, float, str]], most: float) -> str:
    """A bar on one line: parts as (what it is, how much, class), the whole width being ``most``."""
    width = 240.0
    shown = [part for part in parts if part[1] > 0]
    label = ", ".join(f"{name} {number_text(value)}" for name, value, _ in shown)
    root = picture(label, width, 12)
    x = 0.0
    for name, value, css in shown:
        wide = max(1.0, value / most * width) if most else 0.0
        group = put(root, "g", css=css)
        put(group, "title", f"{name}: {value:,.0f}")
        put(group, "rect", x=x, y=1, width=wide, height=10)
        x += wide
    return svg(root)


def span(lo: float, mid: float, hi: float, actual: float) -> str:
    """An estimate's range as a bar and what came of it as a dot, as multiples of the estimate on a scale of tenths to tens."""
    width = 200.0
    root = picture(f"estimated {lo:g} to {hi:g}, was {actual:g}", width, 16)
    scale = Axis(-1.0, 1.0, 6.0, width - 6, ())

    def at(value: float) -> float:
        return scale.at(max(-1.0, min(1.0, log10(max(value, 1e-9) / mid))))

    put(root, "line", x1=at(mid), x2=at(mid), y1=1, y2=15, css="grid")
    put(root, "rect", x=at(lo), y=5, width=max(2.0, at(hi) - at(lo)), height=6, css="range", rx=3)
    inside = lo * 0.999 <= actual <= hi * 1.001
    put(root, "circle", cx=at(actual), cy=8, r=4, css="inside" if inside else "outside")
    return svg(root)
