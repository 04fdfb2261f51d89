"""A plan becomes the text that a person reads: the verdict first and last, what runs and why, what it takes."""

from __future__ import annotations

from omrlang.cli.plan_view.funnel import funnel_lines
from omrlang.cli.plan_view.inputs import input_lines
from omrlang.cli.plan_view.layout import wrapped
from omrlang.cli.plan_view.memory import memory_lines
from omrlang.cli.plan_view.notes import check_lines, code_lines, foot_lines, open_lines
from omrlang.cli.plan_view.stages import stage_lines
from omrlang.cli.plan_view.verdict import breakable_verdict, next_command, verdict
from omrlang.plan import Plan

NARROWEST, WIDEST = 60, 120
SECTIONS = (
    input_lines,
    stage_lines,
    code_lines,
    funnel_lines,
    memory_lines,
    open_lines,
    check_lines,
    foot_lines,
)
"""What stands between the first and the last line, each of them left out where it has nothing to say."""


def plan_text(plan: Plan, width: int, saved: str | None = None) -> str:
    """The whole view for a terminal of so many columns; ``saved`` is the plan file that holds it."""
    width = max(NARROWEST, min(width, WIDEST))
    head = list(wrapped(breakable_verdict(plan), width))
    made = f"recipe {plan.recipe} · seed {plan.seed} · omr {plan.omr_version}"
    because = wrapped(f"because {plan.because}", width) if plan.because else ()
    sections = [
        head,
        [*wrapped(made, width), *because],
        *(list(section(plan, width)) for section in SECTIONS),
        [*head, *([f"Saved to {saved}."] if saved else []), f"Next: {next_command(plan, saved)}"],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def summary(plan: Plan, saved: str | None = None) -> str:
    """Two lines."""
    return f"{verdict(plan)}\nNext: {next_command(plan, saved)}\n"
