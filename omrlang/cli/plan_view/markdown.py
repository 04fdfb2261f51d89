"""A plan becomes Markdown for a pull request: the verdict, a table of the stages, the rest folded away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from omrlang.cli.figures import marked, spread
from omrlang.cli.plan_view.funnel import funnel, rows_of
from omrlang.cli.plan_view.inputs import drifted, revision, rows
from omrlang.cli.plan_view.memory import apart_text, said
from omrlang.cli.plan_view.stages import flow, named, price, time, tokens, why
from omrlang.cli.plan_view.verdict import is_priced, next_command, verdict
from omrlang.plan import SYMBOL, Plan


def markdown(plan: Plan, saved: str | None = None) -> str:
    """What stands in a comment: short to read, whole when unfolded."""
    parts = [
        f"**{_plain(verdict(plan))}**",
        f"{_code(plan.recipe)} · seed {plan.seed} · omr {plan.omr_version}",
        _stages(plan),
        _folded("Rows by source", _funnel(plan)),
        _folded("Memory at the peak of a process", _memory(plan)),
        _folded("Inputs", _inputs(plan)),
        _folded(f"Checks: {len(plan.diagnostics)}", _checks(plan)),
        f"Not in these numbers: {', '.join(plan.not_in_it)}. Next: {_code(next_command(plan, saved))}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """Text that is no markup: a name of a recipe's author stays a name."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text).replace("\n", " ")


def _code(text: str) -> str:
    """A code span, fenced by more backticks than the text has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}".replace("\n", " ")


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    cells = [head, rule, *([_plain(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>" if inside else ""


def _stages(plan: Plan) -> str:
    prices = is_priced(plan)
    head = ["", "stage", "rows", "tokens", "time", *(["price"] if prices else []), "why"]
    lines = [
        [SYMBOL[stage.action], named(stage), flow(stage), tokens(stage), time(stage),
         *([price(stage)] if prices else []), why(stage)]
        for stage in plan.stages
    ]  # fmt: skip
    gone = [
        [SYMBOL[item.action], item.address, *[""] * (len(head) - 3), "no longer in the recipe"]
        for item in plan.removed
    ]
    return _table(head, [*lines, *gone], range(2, len(head) - 1))


def _funnel(plan: Plan) -> str:
    stages, names = funnel(plan)
    if len(names) < 2:
        return ""
    lines = []
    for name in names:
        found = (rows_of(stage, name) for stage in stages)
        lines.append([name, *("-" if item is None else marked(item) for item in found)])
    head = ["source", *(_plain(stage.name) for stage in stages)]
    return _table(head, lines, range(1, len(head)))


def _memory(plan: Plan) -> str:
    lines = [
        [
            named(stage),
            spread(memory.total),
            said(memory),
            "; ".join((*filter(None, [apart_text(stage)]), *memory.flips)),
        ]
        for stage in plan.stages
        if stage.costs is not None and (memory := stage.costs.memory) is not None
    ]
    return _table(["stage", "peak", "verdict", "what would change it"], lines) if lines else ""


def _inputs(plan: Plan) -> str:
    lines = [[pin.what, rows(pin), revision(pin), drifted(pin)] for pin in plan.pins]
    return _table(["input", "rows", "revision", "drift"], lines, (1,)) if lines else ""


def _checks(plan: Plan) -> str:
    return "\n".join(_finding_lines(plan))


def _finding_lines(plan: Plan) -> Iterator[str]:
    for item in plan.diagnostics:
        place = f"{item.path}:{item.line}:{item.column}"
        yield f"- {item.severity} {item.code}: {_plain(item.message)} ({_plain(place)})"
