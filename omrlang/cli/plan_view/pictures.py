"""A plan becomes its three pictures: the pipeline as a graph, the rows by source as a funnel, the costs as bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omrlang.cli.figures import count, marked, spread
from omrlang.cli.plan_view.funnel import funnel, rows_of
from omrlang.cli.plan_view.graph import Box, Graph, graph
from omrlang.cli.plan_view.layout import plural
from omrlang.cli.plan_view.stages import flow, named, why
from omrlang.cli.plan_view.svg import (
    Markup,
    block,
    element,
    joined,
    picture,
    shortened,
    strip,
    stripe,
    whisker,
    words,
)
from omrlang.cli.plan_view.verdict import is_priced
from omrlang.plan import SYMBOL, Estimate, Memory, Money, Plan, PlanStage

PAGE = 1068.0
BOX_HEIGHT, ROW_PITCH, GAP = 46.0, 60.0, 28.0
NARROW, WIDE = 105.0, 168.0
"""Boxes are as wide as lets all columns stand side by side on the page, within these bounds."""

CHARACTER = 7.6
"""Width of a letter of a bold name, in pixels; a wide one, since fonts differ."""

NUM_COLORS = 12
SHOWN_SHARE = 0.01
"""Costs below this share of the greatest are told together."""

BAR = 18.0
"""Height of a bar."""


# ---- the pipeline --------------------------------------------------------------------------------------------------


def pipeline(plan: Plan) -> Markup:
    """Every stage as a box, from the sources on the left to what is measured on the right."""
    drawn = graph(plan)
    size = max(NARROW, min(WIDE, PAGE / drawn.num_columns - GAP))
    width = drawn.num_columns * (size + GAP) - GAP + 4
    height = drawn.num_rows * ROW_PITCH - (ROW_PITCH - BOX_HEIGHT) + 4
    due = _due(drawn)
    bends = (_bend(box, size, due) for box in drawn.boxes if not box.stages)
    edges = (_edge(parent, child, size, due) for parent, child in drawn.edges)
    boxes = (_box(box, size) for box in drawn.boxes if box.stages)
    return picture(width, height, "The pipeline", *bends, *edges, *boxes)


def _due(drawn: Graph) -> set[int]:
    """The boxes that something still flows into, and the bends on the way to them, by identity."""
    found = {id(box) for box in drawn.boxes if any(stage.is_due for stage in box.stages)}
    bends = [box for box in drawn.boxes if not box.stages]
    for box in [*drawn.boxes, *reversed(bends)]:
        if id(box) in found:
            found |= {id(drawn.boxes[n]) for n in box.parents if not drawn.boxes[n].stages}
    return found


def _place(box: Box, size: float) -> tuple[float, float]:
    """The upper left corner of a box; of a bend the left end of its line."""
    top = box.row if box.stages else box.middle
    return box.column * (size + GAP) + 2, top * ROW_PITCH + 2


def _level(box: Box, size: float) -> tuple[float, float]:
    """Where lines reach it from the left."""
    x, y = _place(box, size)
    return x, y + (BOX_HEIGHT / 2 if box.stages else 0.0)


def _bend(box: Box, size: float, due: set[int]) -> Markup:
    x, y = _level(box, size)
    return element("path", d=f"M{x:.0f} {y:.0f} h{size:.0f}", class_=_edge_class(box, due))


def _edge(parent: Box, child: Box, size: float, due: set[int]) -> Markup:
    (x, y), (to_x, to_y) = _level(parent, size), _level(child, size)
    middle = (x + size + to_x) / 2
    curve = f"M{x + size:.0f} {y:.0f} C{middle:.0f} {y:.0f} {middle:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"
    return element("path", d=curve, class_=_edge_class(child, due))


def _edge_class(child: Box, due: set[int]) -> str:
    return "edge due" if id(child) in due else "edge"


def _box(box: Box, size: float) -> Markup:
    x, y = _place(box, size)
    stage = box.stages[0]
    many = len(box.stages) > 1
    name = plural(len(box.stages), "source") if many else stage.name
    state = f"{stage.action}{'' if stage.selected else ' out'}"
    return element(
        "g",
        element("title", "\n".join(_told(item) for item in box.stages)),
        block(x, y, size, BOX_HEIGHT, f"box {state}"),
        words(x + 9, y + 18, f"{SYMBOL[stage.action]} {stage.spec.kind}", "kind"),
        words(x + size - 9, y + 18, "" if many else flow_out(stage), "num", "end"),
        words(x + 9, y + 36, shortened(name, int((size - 16) / CHARACTER)), "name"),
    )


def flow_out(stage: PlanStage) -> str:
    """What comes out, as short as it can be: ``874k``."""
    rows = stage.costs.rows_out.mid if stage.costs else None
    if rows is None:
        return "?"
    return f"{rows / 1000:.0f}k" if 10_000 <= rows < 999_500 else count(rows)


def _told(stage: PlanStage) -> str:
    return f"{named(stage)}: {flow(stage)} rows; {why(stage)}"


# ---- bars ----------------------------------------------------------------------------------------------------------


def _bars(label: str, lines: Iterable[Markup]) -> Markup:
    """Lines of a chart, which are as wide as the page lets them."""
    return element("div", *lines, class_="bars", role="group", aria_label=label)


def _bar(name: str, figure: str, drawing: Markup) -> Markup:
    """A name, its bar and its figure side by side; on a narrow page the bar stands below."""
    return element(
        "div",
        element("span", shortened(name, 26), class_="name"),
        drawing,
        element("span", figure, class_="figure"),
        class_="bar-line",
    )


# ---- the funnel ----------------------------------------------------------------------------------------------------


def funnel_picture(plan: Plan) -> Markup | None:
    """A bar for each stage that chooses among rows, in the colours of the sources; None where no stage chooses."""
    stages, sources = funnel(plan)
    known = [stage for stage in stages if _num_rows(stage)]
    if not known or not sources:
        return None
    most = max(_num_rows(stage) for stage in known)
    lines = [_funnel_line(stage, sources, most) for stage in known]
    return _bars("Rows by source", [*lines, _legend(sources)])


def _num_rows(stage: PlanStage) -> float:
    return stage.costs.rows_out.mid or 0.0 if stage.costs else 0.0


def _funnel_line(stage: PlanStage, sources: Sequence[str], most: float) -> Markup:
    total = marked(stage.costs.rows_out) if stage.costs else "?"
    parts, start = [], 0.0
    for number, source in enumerate(sources):
        item = rows_of(stage, source)
        if item is not None and item.mid:
            tip = f"{source}: {marked(item)} rows"
            parts.append(stripe(start, item.mid / most, BAR, _color(number), tip))
            start += item.mid / most
    if not parts:
        parts.append(stripe(0.0, _num_rows(stage) / most, BAR, "plain", total))
    return _bar(stage.name, total + _kept(stage), strip(BAR, f"{stage.name}: {total} rows", *parts))


def _kept(stage: PlanStage) -> str:
    """Of a filter the share that it lets through."""
    costs = stage.costs
    if stage.spec.kind != "filter" or costs is None or not costs.rows_in.mid:
        return ""
    return f" · {_num_rows(stage) / costs.rows_in.mid:.0%} kept"


def _color(number: int) -> str:
    return f"c{number % NUM_COLORS}"


def _legend(names: Sequence[str]) -> Markup:
    """What each colour stands for."""
    items = (
        element("span", element("i", class_=_color(number)), name)
        for number, name in enumerate(names)
    )
    return element("p", *items, class_="legend")


# ---- costs ---------------------------------------------------------------------------------------------------------


def cost_picture(plan: Plan) -> Markup | None:
    """Of each stage that runs what dominates: dollars where all that is rented has a price, else time. The thin line is the range."""
    known = [(s, item) for s in plan.due if (item := _cost(plan, s)) is not None and item.hi]
    if not known:
        return None
    most = max(float(item.hi or 0) for _, item in known)
    great = [(s, item) for s, item in known if float(item.hi or 0) >= SHOWN_SHARE * most]
    rest = len(known) - len(great)
    note = [element("p", f"and {rest} that take less", class_="soft")] if rest else []
    lines = [_cost_line(stage, item, most) for stage, item in great]
    return _bars(f"What it takes, in {unit_of(plan)}", [*lines, *note])


def unit_of(plan: Plan) -> str:
    """What the bars show."""
    priced = is_priced(plan) and plan.totals.usd.mid is not None
    return "dollars" if priced else "time"


def _cost(plan: Plan, stage: PlanStage) -> Estimate | Money | None:
    if stage.costs is None:
        return None
    return stage.costs.usd if unit_of(plan) == "dollars" else stage.costs.seconds


def _cost_line(stage: PlanStage, item: Estimate | Money, most: float) -> Markup:
    lo, mid, hi = (float(end or 0) / most for end in (item.lo, item.mid, item.hi))
    label = f"{stage.name}: {spread(item)}, {item.origin}"
    shapes = [stripe(0.0, mid, BAR, f"bar {item.origin}", label), whisker(lo, hi, BAR / 2)]
    return _bar(stage.name, spread(item), strip(BAR, label, *shapes))


# ---- memory --------------------------------------------------------------------------------------------------------


def memory_picture(memory: Memory) -> Markup | None:
    """The parts side by side against what the device has, and what they are; None where nothing is known."""
    parts = [(name, part) for name, part in memory.parts.items() if part.mid]
    if not parts or memory.total.hi is None:
        return None
    whole = max(memory.capacity_bytes or 0.0, memory.total.hi) or 1.0
    shapes, start = [stripe(0.0, (memory.capacity_bytes or whole) / whole, BAR, "card")], 0.0
    for number, (name, part) in enumerate(parts):
        share = (part.mid or 0.0) / whole
        shapes.append(stripe(start, share, BAR, _color(number), f"{name}: {spread(part)}"))
        start += share
    lo, hi = (float(end or 0.0) / whole for end in (memory.total.lo, memory.total.hi))
    drawing = strip(BAR + 8, "Memory at the peak", *shapes, whisker(lo, hi, BAR + 5))
    return joined([drawing, _legend([f"{name} {spread(part)}" for name, part in parts])])
