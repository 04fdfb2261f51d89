"""A plan becomes the text that a person reads: the verdict first and last, what runs and why, what it takes."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from omrlang.cli.figures import LETTER, dollars, gib, marked, spread, text
from omrlang.plan import (
    SYMBOL,
    Action,
    Estimate,
    Memory,
    Origin,
    Plan,
    PlanDiagnostic,
    PlanStage,
)

REASON_WIDTH = 24
"""A table needs as many columns for its reasons; a narrower terminal gets a list."""

NO_BREAK = "\u00a0"
WORDS: dict[Action, str] = {
    "new": "new",
    "partial": "partly done",
    "cached": "cached",
    "redo": "to redo",
    "removed": "removed",
}


def plan_text(plan: Plan, width: int, saved: str | None = None) -> str:
    """The whole view for a terminal of so many columns; ``saved`` is the plan file that holds it."""
    width = max(60, min(width, 120))
    head = _verdict(plan)
    sections = [
        [*wrapped(head, width)],
        [
            *wrapped(f"recipe {plan.recipe} · seed {plan.seed} · omr {plan.omr_version}", width),
            *(wrapped(f"because {plan.because}", width) if plan.because else ()),
        ],
        list(_stages(plan, width)),
        list(_code(plan, width)),
        list(_funnel(plan, width)),
        list(_memory(plan, width)),
        list(_open_items(plan, width)),
        list(_checks(plan, width)),
        list(_foot(plan, width)),
        [*wrapped(head, width), f"Next: {next_command(plan, saved)}"],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def summary(plan: Plan, saved: str | None = None) -> str:
    """Two lines."""
    return f"{verdict(plan)}\nNext: {next_command(plan, saved)}\n"


# ---- verdict -------------------------------------------------------------------------------------------------------


def verdict(plan: Plan) -> str:
    """One line that says what will happen and what it takes."""
    return _verdict(plan).replace(NO_BREAK, " ")


def _verdict(plan: Plan) -> str:
    due = [stage for stage in plan.stages if stage.action != "cached"]
    if not due:
        return f"Nothing to run: all {len(plan.stages)} stages are cached."
    parts = [_counted(plan), *_takes(plan), *_limits(plan)]
    if plan.totals.not_estimated:
        parts.append(
            f"{plan.totals.not_estimated} stage{_s(plan.totals.not_estimated)} not fully estimated"
        )
    return listing(parts)


def _counted(plan: Plan) -> str:
    counts = {action: sum(stage.action == action for stage in plan.stages) for action in SYMBOL}
    due = sum(count for action, count in counts.items() if action != "cached")
    told = ", ".join(f"{count} {WORDS[action]}" for action, count in counts.items() if count)
    return f"{due} stage{_s(due)} to run ({told})"


def _takes(plan: Plan) -> Iterator[str]:
    totals = plan.totals
    if totals.seconds.mid is not None:
        yield f"about {spread(totals.seconds)}"
    if _has_gpus(plan):
        yield (
            f"{spread(totals.gpu_hours)} GPU-hours"
            if totals.gpu_hours.mid is not None
            else "GPU-hours unknown"
        )
        yield spread(totals.usd) if totals.usd.mid is not None else "price unknown"


def _limits(plan: Plan) -> Iterator[str]:
    verdicts = {
        stage.costs.memory.verdict
        for stage in plan.stages
        if stage.action != "cached" and stage.costs and stage.costs.memory
    }
    if "does not fit" in verdicts:
        yield "memory DOES NOT FIT"
    elif "uncertain" in verdicts:
        yield "memory UNCERTAIN"
    elif verdicts == {"fits"}:
        yield "memory fits"
    if plan.exit.reason.startswith("over_budget"):
        limit = plan.budget_p50_usd if plan.exit.reason.endswith("p50") else plan.budget_p90_usd
        yield f"OVER BUDGET {dollars(float(limit or 0))}"


def _has_gpus(plan: Plan) -> bool:
    return any(
        (hardware := getattr(stage.spec, "hardware", None)) is not None and hardware.gpu is not None
        for stage in plan.stages
    )


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def next_command(plan: Plan, saved: str | None = None) -> str:
    """What to type after reading."""
    if all(stage.action == "cached" for stage in plan.stages):
        return f"omr show runs, or edit {plan.recipe}"
    limits = " --accept-limits" if plan.exit.code == 3 else ""
    if saved is not None:
        return f"omr run {shlex.quote(saved)}{limits}"
    given = {"--set": plan.overrides, "--select": plan.selection, "--force": plan.forced}
    options = "".join(
        f" {option} {shlex.quote(item)}" for option, items in given.items() for item in items
    )
    return f"omr run {shlex.quote(plan.recipe)}{options}{limits}"


# ---- stages --------------------------------------------------------------------------------------------------------


def _stages(plan: Plan, width: int) -> Iterator[str]:
    actions = dict.fromkeys(stage.action for stage in plan.stages)
    yield from wrapped(
        "   ".join(f"{SYMBOL[action]} {WORDS[action]}" for action in actions), width, "Stages   "
    )
    yield ""
    table = list(_table(plan, width))
    if max(map(len, table)) <= width and _reason_width(plan, width) >= REASON_WIDTH:
        yield from table
    else:
        for stage in plan.stages:
            yield from _listed(stage, width)
    for gone in plan.removed:
        yield f"  {SYMBOL['removed']:>3} {gone.name}  is no longer in the recipe"


def _listed(stage: PlanStage, width: int) -> Iterator[str]:
    yield from wrapped(
        f"{_address(stage)}  {stage.reason_text}", width, f"  {SYMBOL[stage.action]:>3} "
    )
    figures = [
        _unit(_flow(stage), _rows_word(stage)),
        _unit(_tokens(stage), "tokens"),
        _time(stage),
        _price(stage),
    ]
    yield from wrapped(listing(figures), width, "        ")


def _code(plan: Plan, width: int) -> Iterator[str]:
    """What runs on this machine that is neither omr nor a model."""
    if plan.code:
        yield "Code of this recipe that will run"
    for code in plan.code:
        what = f"{code.entry} in {', '.join(code.stages)}"
        files = f"{', '.join(code.files)} · sha256 {code.sha256[:12]}"
        yield from wrapped(f"{what} · {files}", width, "  ")


def _address(stage: PlanStage) -> str:
    return f"{stage.spec.kind} {stage.name}"


def _rows_word(stage: PlanStage) -> str:
    return {"rl": "rollouts", "eval": "answers"}.get(stage.spec.kind, "rows")


def _unit(figure: str, unit: str) -> str:
    """The unit between a number and the letter of its origin."""
    number, _, letter = figure.rpartition(" ")
    return f"{number} {unit} {letter}" if number else f"{figure} {unit}" if figure else ""


def listing(items: Iterable[str]) -> str:
    """Items side by side; a line may break between two of them, never inside one."""
    return " · ".join(item.replace(" ", NO_BREAK) for item in items if item)


def _table(plan: Plan, width: int) -> Iterator[str]:
    lines = _cells(plan)
    widths = _widths(lines)
    for line in lines:
        left = f"  {line[0]:>{widths[0]}} {line[1]:<{widths[1]}}  "
        middle = "  ".join(
            f"{cell:>{size}}" for cell, size in zip(line[2:-1], widths[2:], strict=True)
        )
        yield from wrapped(line[-1] or " ", width, f"{left}{middle}  ")


def _cells(plan: Plan) -> list[list[str]]:
    prices = _has_gpus(plan)
    lines = [["", "stage", "rows", "tokens", "time", *(["price"] if prices else []), "why"]]
    for stage in plan.stages:
        cells = [
            f"{SYMBOL[stage.action]:>3}",
            _address(stage),
            _flow(stage),
            _tokens(stage),
            _time(stage),
        ]
        lines.append([*cells, *([_price(stage)] if prices else []), stage.reason_text])
    return lines


def _widths(lines: list[list[str]]) -> list[int]:
    """Of every column but the last, which takes what is left."""
    return [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]


def _reason_width(plan: Plan, width: int) -> int:
    """Columns that a table leaves for the reasons, or as many as asked for where no reason needs them."""
    lines = _cells(plan)
    sizes = _widths(lines)
    left = width - sum(sizes) - 2 * len(sizes) - 3
    return REASON_WIDTH if max(len(line[-1]) for line in lines) <= left else left


def _flow(stage: PlanStage) -> str:
    """Rows in and out, or one number where they are the same."""
    costs = stage.costs
    if costs is None:
        return "?"
    if stage.spec.kind in ("source", "sft") or (costs.rows_in.mid, costs.rows_in.hi) == (
        costs.rows_out.mid,
        costs.rows_out.hi,
    ):
        return marked(costs.rows_out)
    return f"{text(costs.rows_in)} → {marked(costs.rows_out)}"


def _tokens(stage: PlanStage) -> str:
    costs = stage.costs
    return "" if costs is None or costs.tokens.mid == 0 else marked(costs.tokens)


def _time(stage: PlanStage) -> str:
    """Nothing for what is cached, except what it took when it ran."""
    if stage.costs is None or (
        stage.action == "cached" and stage.costs.seconds.origin != "measured"
    ):
        return ""
    took = marked(stage.costs.seconds)
    return f"({took})" if stage.action == "cached" else took


def _price(stage: PlanStage) -> str:
    if stage.costs is None or stage.action == "cached" or stage.costs.gpu_hours.mid == 0:
        return ""
    return marked(stage.costs.usd)


# ---- funnel, memory ------------------------------------------------------------------------------------------------


def _funnel(plan: Plan, width: int) -> Iterator[str]:
    """Rows of each source through the stages that choose rows; only where there are several sources to compare."""
    stages = [
        stage
        for stage in plan.stages
        if stage.spec.kind in ("mix", "sample", "filter") and stage.costs
    ]
    names = list(
        dict.fromkeys(
            name for stage in stages if stage.costs for name in stage.costs.rows_by_source
        )
    )
    if len(names) < 2 or not stages:
        return
    first = max(len(name) for name in names) + 2
    room = (width - first) // (max(len(stage.name) for stage in stages) + 4)
    shown = stages[: max(1, room)]
    size = max(max(len(stage.name) for stage in shown), 9) + 3
    yield f"{'Rows by source':<{first}}"[: max(first, 14)].ljust(max(first, 14)) + "".join(
        f"{stage.name:>{size}}" for stage in shown
    )
    for name in names:
        cells = (
            _cell(stage.costs.rows_by_source.get(name) if stage.costs else None) for stage in shown
        )
        yield f"  {name}".ljust(max(first, 14)) + "".join(f"{cell:>{size}}" for cell in cells)
    if len(shown) < len(stages):
        yield f"  {len(stages) - len(shown)} more stages: --json"


def _cell(item: Estimate | None) -> str:
    return "-" if item is None else marked(item)


def _memory(plan: Plan, width: int) -> Iterator[str]:
    found = [
        (stage, stage.costs.memory)
        for stage in plan.stages
        if stage.costs is not None and stage.costs.memory is not None
    ]
    if not found:
        return
    yield "Memory at the peak of a process, GiB"
    for stage, memory in found:
        limit = "" if memory.capacity_bytes is None else f" of {gib(memory.capacity_bytes)}"
        peak = "?" if memory.total.mid is None else _peak(memory)
        yield from wrapped(
            f"{peak}{limit}  {memory.verdict.upper() if memory.verdict in ('uncertain', 'does not fit') else memory.verdict}",
            width,
            f"  {_address(stage)}  ",
        )
        if memory.parts:
            yield from wrapped(
                listing(f"{name} {_gib(part)}" for name, part in memory.parts.items()),
                width,
                "      ",
            )
        for flip in memory.flips:
            yield from wrapped(
                flip, width, "      with " if memory.verdict != "fits" else "      not with "
            )


def _peak(memory: Memory) -> str:
    total = memory.total
    assert total.lo is not None, "a known peak has a range"
    assert total.mid is not None, "a known peak has a range"
    assert total.hi is not None, "a known peak has a range"
    return f"{gib(total.mid)} ({gib(total.lo)} – {gib(total.hi)}) {LETTER[total.origin]}"


def _gib(item: Estimate) -> str:
    return "?" if item.mid is None else gib(item.mid)


# ---- what is open, checks, foot ------------------------------------------------------------------------------------


def _open_items(plan: Plan, width: int) -> Iterator[str]:
    """Numbers that could not be estimated, each reason once."""
    reasons: dict[str, list[str]] = {}
    for stage in plan.stages:
        for metric, why in _unknowns(stage):
            reasons.setdefault(why, []).append(f"{stage.name}.{metric}")
    if not reasons:
        return
    yield "Not estimated (totals leave it out)"
    for why, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield from wrapped(f"{', '.join(names[:3])}{more}: {why}", width, "  ")


def _unknowns(stage: PlanStage) -> Iterator[tuple[str, str]]:
    costs = stage.costs
    if costs is None or stage.action == "cached":
        return
    for metric, item in (
        ("rows", costs.rows_out),
        ("tokens", costs.tokens),
        ("time", costs.seconds),
        ("price", costs.usd),
    ):
        if item.mid is None:
            yield metric, item.formula
    if costs.memory is not None and costs.memory.total.mid is None:
        yield "memory", costs.memory.total.formula


ALIKE = 3
"""So many findings of one code are shown in full; a recipe over thirty public sets has thirty that are not pinned."""


def _checks(plan: Plan, width: int) -> Iterator[str]:
    if not plan.diagnostics:
        return
    yield f"Checks   {len(plan.diagnostics)} to look at"
    seen: Counter[str] = Counter()
    for item in plan.diagnostics:
        seen[item.code] += 1
        if seen[item.code] <= ALIKE:
            yield from _finding(item, width)
    more = [f"{count - ALIKE} more {code}" for code, count in seen.items() if count > ALIKE]
    if more:
        yield from wrapped(f"and {', '.join(more)}; --json has them all", width, "  ")


def _finding(item: PlanDiagnostic, width: int) -> Iterator[str]:
    yield from wrapped(f"{item.severity}[{item.code}]: {item.message}", width, "  ")
    yield f"    --> {item.path}:{item.line}:{item.column}"
    if item.hint:
        yield from wrapped(item.hint, width, "    ")


def _foot(plan: Plan, width: int) -> Iterator[str]:
    open_paths = [
        f"{stage.name}.{path}" for stage in plan.stages for path in stage.spec.unpublished
    ]
    if open_paths:
        yield from wrapped(
            f"Unpublished, to be decided before a run: {', '.join(open_paths)}", width
        )
    letters = " · ".join(f"{LETTER[origin]} {origin}" for origin in _origins(plan))
    yield from wrapped(f"Where numbers come from: {letters}", width)
    yield from wrapped(f"Not in these numbers: {', '.join(plan.not_in_it)}.", width)


def _origins(plan: Plan) -> list[Origin]:
    used: set[Origin] = set()
    for stage in plan.stages:
        if stage.costs is not None:
            costs = stage.costs
            used |= {
                costs.rows_out.origin,
                costs.seconds.origin,
                costs.usd.origin if _has_gpus(plan) else costs.seconds.origin,
            }
            used |= {costs.tokens.origin} if costs.tokens.mid != 0 else set()
            used |= {costs.memory.total.origin} if costs.memory is not None else set()
    return [origin for origin in LETTER if origin in used]


def wrapped(content: str, width: int, indent: str = "") -> Iterable[str]:
    """Lines of at most ``width`` columns; what follows stands under what comes after ``indent``."""
    lines = textwrap.wrap(
        content,
        width=width,
        initial_indent=indent,
        subsequent_indent=" " * min(len(indent), width // 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(NO_BREAK, " ") for line in lines] or [indent.rstrip()]
