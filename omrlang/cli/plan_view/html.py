"""A plan becomes one page that holds all it needs: tiles, the pipeline, stages, funnel, costs, memory, inputs, checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from omrlang.cli.figures import LETTER, gib, spread
from omrlang.cli.plan_view.inputs import drifted, revision, rows
from omrlang.cli.plan_view.memory import apart_text, said
from omrlang.cli.plan_view.notes import origins
from omrlang.cli.plan_view.pictures import (
    cost_picture,
    funnel_picture,
    memory_picture,
    pipeline,
    unit_of,
)
from omrlang.cli.plan_view.stages import flow, named, price, rows_word, time, tokens, why
from omrlang.cli.plan_view.svg import Markup, element, joined, safe
from omrlang.cli.plan_view.verdict import has_gpus, is_priced, next_command, verdict
from omrlang.plan import SYMBOL, Memory, Plan, PlanDiagnostic, PlanPin, PlanStage

RANGES = (
    "A bar ends at the middle, the thin line is the range. Green: measured or scaled from a "
    "measurement; blue: by a formula or declared; grey: assumed."
)
MANY = 8
"""So many inputs that are not pinned are told one by one."""

GOOD_OR_BAD = {"fits": "fits", "uncertain": "uncertain", "does not fit": "bad", "unknown": "soft"}


def page(plan: Plan, saved: str | None = None) -> str:
    """The whole document. It loads nothing and runs no script."""
    style = safe(f"<style>{Path(__file__).with_name('page.css').read_text()}</style>")
    head = element(
        "head",
        safe('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        element("title", f"Plan of {plan.recipe}"),
        style,
    )
    body = element("body", *_body(plan, saved))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _body(plan: Plan, saved: str | None) -> Iterator[Markup]:
    yield element("h1", verdict(plan))
    about = f"{plan.recipe} · seed {plan.seed} · omr {plan.omr_version}"
    yield element("p", about, class_="soft")
    if plan.because:
        yield element("p", plan.because)
    yield element("div", *_tiles(plan), class_="tiles")
    yield from _section("Pipeline", "pipeline", [_wide(pipeline(plan))])
    yield from _section("Stages", "stages", [_stages(plan)])
    yield from _drawn("Rows by source", "funnel", funnel_picture(plan))
    yield from _drawn(f"What it takes, in {unit_of(plan)}", "costs", cost_picture(plan), RANGES)
    yield from _section("Memory at the peak of a process", "memory", _memory(plan))
    yield from _section("Inputs", "inputs", _inputs(plan))
    yield from _section("Checks", "checks", _checks(plan))
    yield element("p", _foot(plan), class_="soft")
    last = element("p", element("b", verdict(plan)))
    command = element("p", "Next: ", element("code", next_command(plan, saved)))
    yield element("div", last, command, class_="next")


def _section(title: str, name: str, parts: Iterable[Markup]) -> Iterator[Markup]:
    """Nothing where there is nothing to show."""
    found = list(parts)
    if found:
        yield element("section", element("h2", title), *found, id=name)


def _drawn(title: str, name: str, drawing: Markup | None, note: str = "") -> Iterator[Markup]:
    told = [element("p", note, class_="soft")] if note else []
    yield from _section(title, name, [] if drawing is None else [*told, drawing])


def _wide(inner: Markup) -> Markup:
    """What a narrow page scrolls sideways."""
    return element("div", inner, class_="wide")


def _tiles(plan: Plan) -> Iterator[Markup]:
    totals = plan.totals
    yield _tile(f"{len(plan.due)} of {len(plan.stages)}", "stages to run")
    shown = [("time", totals.seconds), ("tokens", totals.tokens)]
    shown += [("GPU-hours", totals.gpu_hours)] if has_gpus(plan) else []
    for what, item in shown:
        yield _tile(spread(item).partition(" (")[0], f"{what} {_range(spread(item))}")
    if is_priced(plan):
        yield _tile(
            "unknown" if totals.usd.mid is None else spread(totals.usd).partition(" (")[0],
            f"price {_range(spread(totals.usd))}",
        )
    if totals.not_estimated:
        yield _tile(str(totals.not_estimated), "stages not fully estimated")


def _range(shown: str) -> str:
    inside = shown.partition(" (")[2]
    return f"({inside}" if inside else ""


def _tile(big: str, small: str) -> Markup:
    return element("div", element("b", big), element("span", small), class_="tile")


def _table(head: Iterable[tuple[str, str]], lines: Iterable[Markup]) -> Markup:
    """On a narrow page each line is a block: the stylesheet puts a figure's unit behind it then."""
    titles = (element("th", title, class_=cls or None) for title, cls in head)
    return element("table", element("tr", *titles), *lines)


def _figure(text: str, unit: str | None = None) -> Markup:
    return element("td", text, class_="num", data_unit=unit if text else None)


def _stages(plan: Plan) -> Markup:
    prices = is_priced(plan)
    head = [("", ""), ("stage", ""), ("rows", "num"), ("tokens", "num"), ("time", "num")]
    head += [("price", "num")] if prices else []
    empty = [_figure("")] * (3 + prices)
    gone = (
        element(
            "tr",
            element("td", SYMBOL[item.action], class_="sym"),
            element("td", item.address.replace(".", " ", 1), class_="name"),
            *empty,
            element("td", "no longer in the recipe", class_="why"),
        )
        for item in plan.removed
    )
    lines = (_stage(stage, prices=prices) for stage in plan.stages)
    return _table([*head, ("why", "")], [*lines, *gone])


def _stage(stage: PlanStage, *, prices: bool) -> Markup:
    figures = [(flow(stage), rows_word(stage)), (tokens(stage), "tokens"), (time(stage), None)]
    figures += [(price(stage), None)] if prices else []
    cells = [
        element("td", SYMBOL[stage.action], class_=f"sym {stage.action}"),
        element("td", named(stage), class_="name"),
        *(_figure(figure, unit) for figure, unit in figures),
        element("td", why(stage), class_="why"),
    ]
    return element("tr", *cells, class_=None if stage.selected else "out")


def _memory(plan: Plan) -> Iterator[Markup]:
    for stage in plan.stages:
        if stage.costs is not None and stage.costs.memory is not None:
            yield joined(_memory_of(stage, stage.costs.memory))


def _memory_of(stage: PlanStage, memory: Memory) -> Iterator[Markup]:
    limit = "" if memory.capacity_bytes is None else f" of {gib(memory.capacity_bytes)} GiB"
    verdict_ = element("b", said(memory), class_=GOOD_OR_BAD[memory.verdict])
    yield element("p", f"{named(stage)}: {spread(memory.total)}{limit}  ", verdict_)
    drawing = memory_picture(memory)
    if drawing is not None:
        yield drawing
    apart = apart_text(stage)
    if apart is not None:
        yield element("p", apart, class_="soft")
    word = "not with" if memory.verdict == "fits" else "with"
    for flip in memory.flips:
        yield element("p", f"{word} {flip}", class_="soft")


def _inputs(plan: Plan) -> Iterator[Markup]:
    """Those that are not pinned folded together where they are many."""
    loose = [pin for pin in plan.pins if pin.revision is None and not pin.drift]
    folded = loose if len(loose) > MANY else []
    shown = [pin for pin in plan.pins if pin not in folded]
    if shown:
        yield _pins(shown)
    if folded:
        told = element("summary", f"{len(folded)} not pinned")
        yield element("details", told, *(element("div", pin.what) for pin in folded))


def _pins(pins: Iterable[PlanPin]) -> Markup:
    lines = (
        element(
            "tr",
            element("td", pin.what, class_="name"),
            _figure(rows(pin)),
            element("td", element("code", revision(pin))),
            element("td", drifted(pin), class_="warning" if pin.drift else None),
        )
        for pin in pins
    )
    head = [("input", ""), ("rows", "num"), ("revision", ""), ("drift", "")]
    return _table(head, lines)


def _checks(plan: Plan) -> Iterator[Markup]:
    """Findings of one code together, closed where there are many."""
    by_code: dict[str, list[PlanDiagnostic]] = {}
    for item in plan.diagnostics:
        by_code.setdefault(item.code, []).append(item)
    for code, items in by_code.items():
        head = element("b", f"{items[0].severity}[{code}]", class_=items[0].severity)
        if len(items) == 1:
            yield element("div", head, " ", *_finding(items[0]))
        else:
            found = (element("div", *_finding(item)) for item in items)
            yield element("details", element("summary", head, f" {len(items)} findings"), *found)


def _finding(item: PlanDiagnostic) -> Iterator[Markup | str]:
    yield f"{item.message} "
    yield element("small", f"{item.path}:{item.line}:{item.column} ")
    if item.hint:
        yield element("small", item.hint)


def _foot(plan: Plan) -> str:
    letters = " · ".join(f"{LETTER[origin]} {origin}" for origin in origins(plan))
    left = ", ".join(plan.not_in_it)
    return f"Where numbers come from: {letters}. Not in these numbers: {left}."
