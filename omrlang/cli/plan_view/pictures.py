"""A plan becomes its three pictures: the pipeline as a graph, the rows by source as a funnel, the costs as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omrlang.cli.figures import count, marked, spread
from omrlang.cli.plan_view.funnel import funnel, rows_of
from omrlang.cli.plan_view.graph import Box, graph
from omrlang.cli.plan_view.layout import plural
from omrlang.cli.plan_view.stages import flow, named, why
from omrlang.cli.plan_view.svg import Markup, block, element, joined, picture, shortened, words
from omrlang.cli.plan_view.verdict import is_priced
from omrlang.plan import SYMBOL, Estimate, Memory, Money, Plan, PlanStage

PAGE = 1068.0
BOX_HEIGHT, ROW_PITCH, GAP = 46.0, 60.0, 28.0
NARROW, WIDE = 105.0, 168.0
"""Boxes are as wide as lets all columns stand side by side on the page, within these bounds."""

CHARACTER = 8.2
"""Width of a letter of a bold name, in pixels; a wide one, since fonts differ."""

NUM_COLORS = 12
SHOWN_SHARE = 0.01
"""Costs below this share of the greatest are told together."""

BAR, LINE, LABEL, VALUE = 18.0, 30.0, 190.0, 170.0
CHART = 460.0


# ---- the pipeline --------------------------------------------------------------------------------------------------


def pipeline(plan: Plan) -> Markup:
    """Every stage as a box, from the sources on the left to what is measured on the right."""
    drawn = graph(plan)
    size = max(NARROW, min(WIDE, PAGE / drawn.num_columns - GAP))
    width = drawn.num_columns * (size + GAP) - GAP + 4
    height = drawn.num_rows * ROW_PITCH - (ROW_PITCH - BOX_HEIGHT) + 4
    edges = (_edge(parent, child, size) for parent, child in drawn.edges)
    boxes = (_box(box, size) for box in drawn.boxes)
    return picture(width, height, "The pipeline", *edges, *boxes)


def _place(box: Box, size: float) -> tuple[float, float]:
    return box.column * (size + GAP) + 2, box.row * ROW_PITCH + 2


def _edge(parent: Box, child: Box, size: float) -> Markup:
    (x, y), (to_x, to_y) = _place(parent, size), _place(child, size)
    x, y, to_y = x + size, y + BOX_HEIGHT / 2, to_y + BOX_HEIGHT / 2
    bend = max(GAP / 2, (to_x - x) / 2)
    curve = f"M{x:.0f} {y:.0f} C{x + bend:.0f} {y:.0f} {to_x - bend:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"
    due = any(stage.is_due for stage in child.stages)
    return element("path", d=curve, class_="edge due" if due else "edge")


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
    """What comes out, as short as it can be."""
    rows = stage.costs.rows_out.mid if stage.costs else None
    return "?" if rows is None else count(rows)


def _told(stage: PlanStage) -> str:
    return f"{named(stage)}: {flow(stage)} rows; {why(stage)}"


# ---- the funnel ----------------------------------------------------------------------------------------------------


def funnel_picture(plan: Plan) -> Markup | None:
    """A bar for each stage that chooses among rows, in the colours of the sources; None where no stage chooses."""
    stages, sources = funnel(plan)
    known = [stage for stage in stages if _num_rows(stage)]
    if not known or not sources:
        return None
    most = max(_num_rows(stage) for stage in known)
    bars = [
        joined(_funnel_bar(stage, sources, number * LINE, most))
        for number, stage in enumerate(known)
    ]
    height = len(known) * LINE
    legend = list(_legend(sources, height + 8))
    rows = (len(sources) + 2) // 3
    return picture(LABEL + CHART + VALUE, height + 16 + 20 * rows, "Rows by source", *bars, *legend)


def _num_rows(stage: PlanStage) -> float:
    return stage.costs.rows_out.mid or 0.0 if stage.costs else 0.0


def _funnel_bar(
    stage: PlanStage, sources: Sequence[str], y: float, most: float
) -> Iterator[Markup]:
    yield words(LABEL - 10, y + 14, shortened(stage.name, 24), "", "end")
    x = LABEL
    for number, source in enumerate(sources):
        item = rows_of(stage, source)
        if item is not None and item.mid:
            width = item.mid / most * CHART
            tip = f"{source}: {marked(item)} rows"
            yield block(x, y, width, BAR, f"c{number % NUM_COLORS}", tip)
            x += width
    if x == LABEL:
        width = _num_rows(stage) / most * CHART
        yield block(x, y, width, BAR, "plain", marked(stage.costs.rows_out) if stage.costs else "")
        x += width
    total = marked(stage.costs.rows_out) if stage.costs else ""
    yield words(x + 8, y + 14, total, "num")


def _legend(sources: Sequence[str], y: float) -> Iterator[Markup]:
    for number, source in enumerate(sources):
        x, line = LABEL + number % 3 * 200, y + number // 3 * 20
        yield block(x, line, 12, 12, f"c{number % NUM_COLORS}")
        yield words(x + 18, line + 10.5, shortened(source, 26))


# ---- costs ---------------------------------------------------------------------------------------------------------


def cost_picture(plan: Plan) -> Markup | None:
    """Of each stage that runs what dominates: dollars where all that is rented has a price, else time. The thin line is the range."""
    known = [(s, item) for s in plan.due if (item := _cost(plan, s)) is not None and item.hi]
    if not known:
        return None
    most = max(float(item.hi or 0) for _, item in known)
    great = [(s, item) for s, item in known if float(item.hi or 0) >= SHOWN_SHARE * most]
    bars = [
        _cost_bar(stage, item, number * LINE, most) for number, (stage, item) in enumerate(great)
    ]
    rest = len(known) - len(great)
    note = (
        [words(LABEL, len(great) * LINE + 12, f"and {rest} that take less", "num")] if rest else []
    )
    height = len(great) * LINE + 20 * len(note)
    name = f"What it takes, in {unit_of(plan)}"
    return picture(LABEL + CHART + VALUE + 60, height, name, *map(joined, bars), *note)


def unit_of(plan: Plan) -> str:
    """What the bars show."""
    priced = is_priced(plan) and plan.totals.usd.mid is not None
    return "dollars" if priced else "time"


def _cost(plan: Plan, stage: PlanStage) -> Estimate | Money | None:
    if stage.costs is None:
        return None
    return stage.costs.usd if unit_of(plan) == "dollars" else stage.costs.seconds


def _cost_bar(stage: PlanStage, item: Estimate | Money, y: float, most: float) -> Iterator[Markup]:
    lo, mid, hi = (float(end or 0) / most * CHART for end in (item.lo, item.mid, item.hi))
    yield words(LABEL - 10, y + 14, shortened(stage.name, 24), "", "end")
    yield block(
        LABEL, y, max(mid, 1.0), BAR, f"bar {item.origin}", f"{spread(item)}, {item.origin}"
    )
    yield element("path", d=f"M{LABEL + lo:.1f} {y + 9} H{LABEL + hi:.1f}", class_="whisker")
    yield words(LABEL + max(mid, hi) + 8, y + 14, spread(item), "num")


# ---- memory --------------------------------------------------------------------------------------------------------


def memory_picture(memory: Memory) -> Markup | None:
    """The parts side by side against what the device has; None where nothing is known."""
    parts = [(name, part) for name, part in memory.parts.items() if part.mid]
    if not parts or memory.total.hi is None:
        return None
    whole = max(memory.capacity_bytes or 0.0, memory.total.hi) or 1.0
    width = CHART + LABEL
    shapes, x = [block(0, 0, (memory.capacity_bytes or whole) / whole * width, BAR, "card")], 0.0
    for number, (name, part) in enumerate(parts):
        size = (part.mid or 0.0) / whole * width
        shapes.append(block(x, 0, size, BAR, f"c{number % NUM_COLORS}", f"{name}: {spread(part)}"))
        x += size
    lo, hi = (float(end or 0.0) / whole * width for end in (memory.total.lo, memory.total.hi))
    shapes.append(element("path", d=f"M{lo:.1f} 23 H{hi:.1f}", class_="whisker"))
    return picture(width + 4, 28, "Memory at the peak", *shapes)
