"""What stands below the numbers of a plan: what runs as code, what is open, what to look at, where numbers come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from omrlang.cli.figures import LETTER, whole
from omrlang.cli.plan_view.layout import wrapped
from omrlang.cli.plan_view.verdict import is_priced
from omrlang.plan import Origin, Plan, PlanDiagnostic, PlanStage


def code_lines(plan: Plan, width: int) -> Iterator[str]:
    """What runs on this machine that is neither omr nor a model."""
    if plan.code:
        yield "Code of this recipe that will run"
    for code in plan.code:
        what = f"{code.entry} in {', '.join(code.stages)}"
        files = f"{', '.join(code.files)} · sha256 {code.sha256[:12]}"
        yield from wrapped(f"{what} · {files}", width, "  ")


def open_lines(plan: Plan, width: int) -> Iterator[str]:
    """Numbers that could not be estimated, each reason once."""
    reasons: dict[str, list[str]] = {}
    for stage in plan.stages:
        for metric, why in unknowns(stage):
            reasons.setdefault(why, []).append(f"{stage.name}.{metric}")
    if not reasons:
        return
    yield "Not estimated (totals leave it out)"
    for why, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield from wrapped(f"{', '.join(names[:3])}{more}: {why}", width, "  ")


def unknowns(stage: PlanStage) -> Iterator[tuple[str, str]]:
    costs = stage.costs
    if costs is None or not stage.is_due:
        return
    for metric, item in (
        ("rows", costs.rows_out),
        ("tokens", costs.tokens),
        ("time", costs.seconds),
        ("price", costs.usd),
    ):
        if item.mid is None:
            yield metric, item.formula
    judges = costs.extra.get("judge_usd")
    if judges is not None and judges.mid is None:
        yield "judge price", f"{judges.formula} ({whole(costs.extra['judge_tokens'])})"
    if costs.memory is not None and costs.memory.total.mid is None:
        yield "memory", costs.memory.total.formula


ALIKE = 3
"""So many findings of one code are shown in full; a recipe over thirty public sets has thirty that are not pinned."""


def check_lines(plan: Plan, width: int) -> Iterator[str]:
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


def foot_lines(plan: Plan, width: int) -> Iterator[str]:
    open_paths = [
        f"{stage.name}.{path}" for stage in plan.stages for path in stage.spec.unpublished
    ]
    if open_paths:
        yield from wrapped(
            f"Unpublished, to be decided before a run: {', '.join(open_paths)}", width
        )
    letters = " · ".join(f"{LETTER[origin]} {origin}" for origin in origins(plan))
    yield from wrapped(f"Where numbers come from: {letters}", width)
    yield from wrapped(f"Not in these numbers: {', '.join(plan.not_in_it)}.", width)


def origins(plan: Plan) -> list[Origin]:
    used: set[Origin] = set()
    for stage in plan.stages:
        if stage.costs is not None:
            costs = stage.costs
            used |= {
                costs.rows_out.origin,
                costs.seconds.origin,
                costs.usd.origin if is_priced(plan) else costs.seconds.origin,
            }
            used |= {costs.tokens.origin} if costs.tokens.mid != 0 else set()
            used |= {costs.memory.total.origin} if costs.memory is not None else set()
    return [origin for origin in LETTER if origin in used]
