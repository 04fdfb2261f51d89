"""A diff becomes the text that a person reads: verdict, factors, what moves along, stages, costs, verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from omrlang.cli.figures import spread, text
from omrlang.cli.plan_view.layout import listing, wrapped
from omrlang.diff import Diff, Effect, StageDiff
from omrlang.factors import Factor
from omrlang.plan import Estimate, Money, Totals

MARK: dict[Effect, str] = {
    "same": "=",
    "not in meaning": "=",
    "changed": "-/+",
    "downstream": "-/+",
    "added": "+",
    "removed": "-",
}


def diff_text(diff: Diff, width: int) -> str:
    """The whole view for a terminal of so many columns."""
    width = max(60, min(width, 120))
    head = [*wrapped(diff.verdict, width)]
    sections = [
        head,
        [*wrapped(diff.a, width, "A  "), *wrapped(diff.b, width, "B  ")],
        list(_factors("Factors", diff.factors, width)),
        list(_moves(diff, width)),
        list(_factors("Decide no result", diff.others, width)),
        list(_stages(diff, width)),
        list(_costs(diff, width)),
        [f"Same in both: {diff.num_same} settings."] if diff.factors or diff.others else [],
        head,
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _factors(title: str, factors: tuple[Factor, ...], width: int) -> Iterator[str]:
    if not factors:
        return
    yield title
    first = max(len(factor.path) for factor in factors)
    for factor in factors:
        value = _change(factor)
        stages = ", ".join(factor.stages[:3]) + (
            f" and {len(factor.stages) - 3} more" if len(factor.stages) > 3 else ""
        )
        yield from wrapped(
            f"{value}  ({factor.cls}; {stages})", width, f"  ~ {factor.path:<{first}}  "
        )
        if factor.note:
            yield from wrapped(factor.note, width, "      ")


def _change(factor: Factor) -> str:
    """Where both texts are the same, what they name is not."""
    if factor.old != factor.new:
        return f"{factor.old} -> {factor.new}"
    return f"{factor.old}, set up otherwise" if factor.path == "on" else "asks something else"


def _moves(diff: Diff, width: int) -> Iterator[str]:
    if not diff.moves:
        return
    yield "Moves along, though nobody wrote it"
    for move in diff.moves:
        yield from wrapped(
            f"{move.stage}: {move.what} {move.old} -> {move.new}, since {move.why}", width, "  ! "
        )
        if move.hold:
            yield from wrapped(f"held by {move.hold}", width, "      ")


def _stages(diff: Diff, width: int) -> Iterator[str]:
    shown = [
        stage
        for stage in diff.stages
        if stage.effect not in ("same", "not in meaning") or stage.old_name
    ]
    if not shown:
        return
    same = len(diff.stages) - len(shown)
    yield "Stages of B after A"
    for stage in shown:
        yield from wrapped(
            f"{stage.kind} {stage.name}  {_why(stage)}", width, f"  {MARK[stage.effect]:>3} "
        )
    if same:
        yield f"    = {same} more, served by A's artifacts"


def _why(stage: StageDiff) -> str:
    parts = [
        f"was {stage.old_name}" if stage.old_name else "",
        stage.why or (stage.effect if stage.effect in ("added", "removed") else ""),
    ]
    return "; ".join(part for part in parts if part)


def _costs(diff: Diff, width: int) -> Iterator[str]:
    lines = [["From scratch", "A", "B", "B after A"]]
    for title, number in _metrics(diff):
        found = [number(side) for side in (diff.cost_a, diff.cost_b, diff.after)]
        lines.append([f"  {title}", *(text(item) for item in found)])
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        yield f"{line[0]:<{widths[0]}}  " + "  ".join(
            f"{cell:>{size}}" for cell, size in zip(line[1:], widths[1:], strict=True)
        )
    missing = max(diff.cost_a.not_estimated, diff.cost_b.not_estimated)
    ranges = [f"B {spread(diff.cost_b.seconds)}"] if diff.cost_b.seconds.mid is not None else []
    ranges += (
        [f"{missing} stage{'' if missing == 1 else 's'} not fully estimated"] if missing else []
    )
    yield from wrapped(listing(ranges), width, "  ")


def _metrics(diff: Diff) -> list[tuple[str, Callable[[Totals], Estimate | Money]]]:
    metrics: list[tuple[str, Callable[[Totals], Estimate | Money]]] = [
        ("rows sampled", lambda totals: totals.rows_sampled),
        ("tokens", lambda totals: totals.tokens),
        ("time", lambda totals: totals.seconds),
    ]
    if diff.cost_a.gpu_hours.mid != 0 or diff.cost_b.gpu_hours.mid != 0:
        metrics += [
            ("GPU-hours", lambda totals: totals.gpu_hours),
            ("dollars", lambda totals: totals.usd),
        ]
    return metrics
