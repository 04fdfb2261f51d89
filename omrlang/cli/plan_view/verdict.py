"""A plan becomes the one line that says what will happen and what it takes, and the command to type next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator

from omrlang.cli.figures import dollars, spread
from omrlang.cli.plan_view.layout import NO_BREAK, listing, plural
from omrlang.plan import Action, Plan, PlanStage

WORDS: dict[Action, str] = {
    "new": "new",
    "partial": "partly done",
    "cached": "cached",
    "redo": "to redo",
    "removed": "removed",
}
MOVED = frozenset({"source_revision_changed", "model_revision_changed"})
"""Reasons that lie in the world and not in the recipe."""


def verdict(plan: Plan) -> str:
    """One line that says what will happen and what it takes."""
    return breakable_verdict(plan).replace(NO_BREAK, " ")


def breakable_verdict(plan: Plan) -> str:
    """The same line, which may be broken between its parts only."""
    if not plan.due:
        return _nothing(plan)
    parts = [*_moved_world(plan), _counted(plan), *_takes(plan), *_limits(plan)]
    if plan.totals.not_estimated:
        parts.append(f"{plural(plan.totals.not_estimated, 'stage')} not fully estimated")
    if plan.exit.code not in (0, 2):
        parts.append(f"exit {plan.exit.code}")
    return listing(parts)


def _nothing(plan: Plan) -> str:
    """Four kinds of nothing to do read differently; that planning failed is never told here."""
    if plan.selection and any(stage.action != "cached" for stage in plan.stages):
        return f"Nothing to run: no stage that `{' '.join(plan.selection)}` means is due."
    if plan.removed:
        gone = plural(len(plan.removed), "stage")
        return f"Nothing to run: {gone} removed, all {len(plan.stages)} others are cached."
    return f"Nothing to run: all {len(plan.stages)} stages are cached."


def _moved_world(plan: Plan) -> Iterator[str]:
    """Where nobody touched the recipe, and what lies outside it is another."""
    own = [stage for stage in plan.due if set(stage.reasons) - {"parent_changed"}]
    if own and all(set(stage.reasons) <= MOVED | {"parent_changed"} for stage in own):
        moved = [pin for pin in plan.pins if any(drift.since == "last run" for drift in pin.drift)]
        if moved:
            yield f"recipe unchanged, {plural(len(moved), 'input')} moved"


def _counted(plan: Plan) -> str:
    counts = Counter(stage.action for stage in plan.due)
    told = ", ".join(f"{counts[action]} {word}" for action, word in WORDS.items() if counts[action])
    rest = Counter(_rest(stage) for stage in plan.stages if not stage.is_due)
    others = "".join(f", {num} {word}" for word, num in sorted(rest.items()))
    return f"{plural(len(plan.due), 'stage')} to run ({told}){others}"


def _rest(stage: PlanStage) -> str:
    return "cached" if stage.action == "cached" else "left out"


def _takes(plan: Plan) -> Iterator[str]:
    totals = plan.totals
    if totals.seconds.mid is not None:
        yield f"about {spread(totals.seconds)}"
    if has_gpus(plan):
        yield (
            f"{spread(totals.gpu_hours)} GPU-hours"
            if totals.gpu_hours.mid is not None
            else "GPU-hours unknown"
        )
    if is_priced(plan):
        yield spread(totals.usd) if totals.usd.mid is not None else "price unknown"


def _limits(plan: Plan) -> Iterator[str]:
    verdicts = {
        stage.costs.memory.verdict for stage in plan.due if stage.costs and stage.costs.memory
    }
    if "does not fit" in verdicts:
        yield "memory DOES NOT FIT"
    elif "uncertain" in verdicts:
        yield "memory UNCERTAIN"
    elif verdicts == {"fits"}:
        yield "memory fits"
    if plan.exit.reason.startswith("over_budget"):
        name = plan.exit.reason.removeprefix("over_budget_")
        limit, value = getattr(plan, f"budget_{name}_usd"), getattr(plan, f"usd_{name}")
        yield f"{name} {dollars(float(value))} is OVER BUDGET {dollars(float(limit))}"
    elif plan.usd_p90 is not None:
        yield f"p90 {dollars(float(plan.usd_p90))} within the budget"
    if plan.exit.reason == "unexpected":
        yield "an `expect` BREAKS"
    if plan.exit.reason == "drift":
        yield "an input is NOT AS LOCKED"
    if plan.exit.reason == "denied":
        yield "REFUSED by --deny"


def is_priced(plan: Plan) -> bool:
    """Whether anything of the plan costs dollars, known or not: rented devices, a provider, a judge's provider."""
    costs = [stage.costs for stage in plan.stages if stage.costs is not None]
    return any(
        cost.usd.mid != 0 or cost.extra.get("judge_usd", cost.usd).mid != 0 for cost in costs
    )


def has_gpus(plan: Plan) -> bool:
    """Whether anything of the plan runs on rented devices, so that it has a price."""
    return any(
        (hardware := getattr(stage.spec, "hardware", None)) is not None and hardware.gpu is not None
        for stage in plan.stages
    )


def next_command(plan: Plan, saved: str | None = None) -> str:
    """What to type after reading; ``saved`` is the plan file that holds the plan."""
    if not plan.due:
        return f"omr show runs, or edit {plan.recipe}"
    limits = " --accept-limits" if plan.exit.code == 3 else ""
    if saved is not None:
        return f"omr run {shlex.quote(saved)}{limits}"
    given = {"--set": plan.overrides, "--select": plan.selection, "--force": plan.forced}
    options = "".join(
        f" {option} {shlex.quote(item)}" for option, items in given.items() for item in items
    )
    return f"omr run {shlex.quote(plan.recipe)}{options}{limits}"
