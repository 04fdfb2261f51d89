"""The stages of a plan become a table, or on a narrow terminal a list: what each is, what it takes, and why it runs."""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.cli.figures import marked, text
from omrlang.cli.plan_view.layout import listing, widths, wrapped
from omrlang.cli.plan_view.verdict import WORDS, is_priced
from omrlang.plan import SYMBOL, UNSETTLED, Plan, PlanStage

REASON_WIDTH = 24
"""A table needs as many columns for its reasons; a narrower terminal gets a list."""


def stage_lines(plan: Plan, width: int) -> Iterator[str]:
    """The legend, then each stage in the order in which it runs, then those that are gone."""
    actions = dict.fromkeys(stage.action for stage in plan.stages)
    legend = [f"{SYMBOL[action]} {WORDS[action]}" for action in actions]
    if any(stage.settled_by for stage in plan.stages):
        legend.append(f"{UNSETTLED} known only after sampling")
    yield from wrapped("   ".join(legend), width, "Stages   ")
    yield ""
    table = list(_table(plan, width))
    if max(map(len, table)) <= width and _reason_width(plan, width) >= REASON_WIDTH:
        yield from table
    else:
        for stage in plan.stages:
            yield from _listed(stage, width)
    for gone in plan.removed:
        kept = f", its {gone.num_rows:,} rows are kept" if gone.num_rows else ""
        told = f"{gone.address.replace('.', ' ', 1)}  no longer in the recipe{kept}"
        yield from wrapped(told, width, f"  {SYMBOL[gone.action]:>3} ")


def why(stage: PlanStage) -> str:
    """The reason as a person reads it."""
    return stage.reason_text if stage.selected else f"left out; {stage.reason_text}"


def named(stage: PlanStage) -> str:
    """``filter accepted``."""
    return f"{stage.spec.kind} {stage.name}"


def _listed(stage: PlanStage, width: int) -> Iterator[str]:
    yield from wrapped(f"{named(stage)}  {why(stage)}", width, f"  {SYMBOL[stage.action]:>3} ")
    figures = [
        _unit(flow(stage), rows_word(stage)),
        _unit(tokens(stage), "tokens"),
        time(stage),
        price(stage),
    ]
    yield from wrapped(listing(figures), width, "        ")


def rows_word(stage: PlanStage) -> str:
    """What the rows of a stage are called."""
    return {"rl": "rollouts", "eval": "answers"}.get(stage.spec.kind, "rows")


def _unit(figure: str, unit: str) -> str:
    """The unit between a number and the letter of its origin."""
    number, _, letter = figure.rpartition(" ")
    return f"{number} {unit} {letter}" if number else f"{figure} {unit}" if figure else ""


def _table(plan: Plan, width: int) -> Iterator[str]:
    lines = _cells(plan)
    sizes = widths(lines)[:-1]
    for line in lines:
        left = f"  {line[0]:>{sizes[0]}} {line[1]:<{sizes[1]}}  "
        middle = "  ".join(
            f"{cell:>{size}}" for cell, size in zip(line[2:-1], sizes[2:], strict=True)
        )
        yield from wrapped(line[-1] or " ", width, f"{left}{middle}  ")


def _cells(plan: Plan) -> list[list[str]]:
    prices = is_priced(plan)
    lines = [["", "stage", "rows", "tokens", "time", *(["price"] if prices else []), "why"]]
    for stage in plan.stages:
        cells = [
            f"{SYMBOL[stage.action]:>3}",
            named(stage),
            flow(stage),
            tokens(stage),
            time(stage),
        ]
        lines.append([*cells, *([price(stage)] if prices else []), why(stage)])
    return lines


def _reason_width(plan: Plan, width: int) -> int:
    """Columns that a table leaves for the reasons, or as many as asked for where no reason needs them."""
    lines = _cells(plan)
    sizes = widths(lines)[:-1]
    left = width - sum(sizes) - 2 * len(sizes) - 3
    return REASON_WIDTH if max(len(line[-1]) for line in lines) <= left else left


def flow(stage: PlanStage) -> str:
    """Rows in and out, or one number where they are the same; marked where it hangs on what is still to be sampled. Of
    rollouts, where some are made that nothing is learned from, also how many in all."""
    costs = stage.costs
    if costs is None:
        return "?"
    one = stage.spec.kind in ("source", "sft") or (costs.rows_in.mid, costs.rows_in.hi) == (
        costs.rows_out.mid,
        costs.rows_out.hi,
    )
    whole = costs.extra["rollouts"] if "rollouts_left_out" in costs.extra else None
    made = marked(costs.rows_out) if whole is None else f"{text(costs.rows_out)} of {marked(whole)}"
    out = made + (UNSETTLED if stage.settled_by else "")
    return out if one else f"{text(costs.rows_in)} → {out}"


def tokens(stage: PlanStage) -> str:
    """Empty where the stage has to do with none."""
    costs = stage.costs
    return "" if costs is None or costs.tokens.mid == 0 else marked(costs.tokens)


def time(stage: PlanStage) -> str:
    """Nothing for what is cached, except what it took when it ran."""
    if stage.costs is None or (
        stage.action == "cached" and stage.costs.seconds.origin != "measured"
    ):
        return ""
    took = marked(stage.costs.seconds)
    return f"({took})" if stage.action == "cached" else took


def price(stage: PlanStage) -> str:
    """Nothing for what is cached or rents nothing."""
    if stage.costs is None or stage.action == "cached" or stage.costs.gpu_hours.mid == 0:
        return ""
    return marked(stage.costs.usd)
