"""A diff or a study becomes sections: titles, tables and lines, from which text, Markdown and HTML are drawn alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from omrlang.cli.figures import spread, text
from omrlang.diff.report import (
    Diff,
    Effect,
    Factor,
    Matters,
    Measured,
    Move,
    ResultDiff,
    RowsOfSource,
    StageDiff,
    Study,
)
from omrlang.plan import Estimate, Money, Totals

MARK: dict[Effect, str] = {
    "same": "=",
    "not in meaning": "=",
    "changed": "-/+",
    "downstream": "-/+",
    "added": "+",
    "removed": "-",
}
MAX_FOLLOWING = 6
"""Moves that follow from others: so many are told, the rest is counted."""


@dataclass(frozen=True, slots=True)
class Section:
    """``rows`` are cells under ``header`` (empty: no header line); ``lines`` stand below. ``detail``: folded where a view can
    fold. ``numbers``: all columns but the first are right-aligned."""

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()
    detail: bool = False
    numbers: bool = False


# ---- two recipes -------------------------------------------------------------------------------


def diff_sections(diff: Diff) -> Iterator[Section]:
    """All but the verdict and the names, in reading order; empty ones left out."""
    found = (
        _factors("Factors", diff.factors, lambda f: f.role in ("acts", "idle", "open")),
        _moves("Moves along, though nobody wrote it", diff, "confound"),
        _factors("Written to hold something", diff.factors, lambda f: f.role == "holds"),
        _moves("May move, which a run would tell", diff, "unknown"),
        _following(diff),
        _moves("Priced otherwise", diff, "cost"),
        *results_sections(diff.results),
        *(_rows(item.stage, item.sources) for item in diff.rows),
        _factors("Decide no result", diff.others, lambda _: True, detail=True),
        _stages(diff),
        _price(diff),
    )
    return (section for section in found if section.rows or section.lines)


def _factors(
    title: str, factors: Sequence[Factor], wanted: Callable[[Factor], bool], *, detail: bool = False
) -> Section:
    rows: list[tuple[str, ...]] = []
    for factor in filter(wanted, factors):
        note = {"idle": "no effect: ", "acts": "", "holds": "", "open": ""}[
            factor.role
        ] + factor.note
        said = ", ".join(
            part for part in (factor.cls, _stages_of(factor), _where(factor), note) if part
        )
        rows.append((factor.address, f"{_change(factor)}  ({said})"))
    return Section(title, (), tuple(rows), detail=detail)


def _where(factor: Factor) -> str:
    """Who set it on either side, and where."""
    sides = (("A", factor.old_at), ("B", factor.new_at))
    return ", ".join(f"{letter} {place.text}" for letter, place in sides if place is not None)


def _stages_of(factor: Factor) -> str:
    """Which stages share it, where they are several."""
    names, more = factor.stages[:3], len(factor.stages) - 3
    if len(factor.stages) == 1:
        return ""
    return " ".join(names) + (f" and {more} more" if more > 0 else "")


def _change(factor: Factor) -> str:
    """Where both texts are the same, what they name is not."""
    if factor.old != factor.new:
        return f"{factor.old} -> {factor.new}"
    if factor.cls == "meta":
        return factor.old
    return f"{factor.old}, set up otherwise" if factor.path == "on" else "asks something else"


def _moves(title: str, diff: Diff, matters: Matters) -> Section:
    """Moves of one stage and quantity together: the reason once, what would hold them last."""
    rows: list[tuple[str, ...]] = []
    wanted = (move for move in diff.moves if move.matters == matters)
    for _, group in groupby(wanted, lambda move: (move.stage, move.quantity, move.why)):
        moves = list(group)
        rows += [(_address(move), f"{move.old_text} -> {move.new_text}") for move in moves]
        rows[-len(moves)] = (_address(moves[0]), f"{rows[-len(moves)][1]}: {moves[0].why}")
        if moves[-1].hold is not None:
            rows.append(("", f"held by {moves[-1].hold.text}"))
    return Section(title, (), tuple(rows))


def _address(move: Move) -> str:
    return f"{move.stage}: {move.what}" if move.stage else move.what


def _following(diff: Diff) -> Section:
    moves = [move for move in diff.moves if move.matters == "follows"]
    rows = tuple((_address(m), f"{m.old_text} -> {m.new_text}") for m in moves[:MAX_FOLLOWING])
    more = len(moves) - MAX_FOLLOWING
    lines = (f"and {more} more, in --json",) if more > 0 else ()
    return Section("Follows from these", (), rows, lines, detail=True)


def _stages(diff: Diff) -> Section:
    shown = [
        stage
        for stage in diff.stages
        if stage.effect not in ("same", "not in meaning") or stage.old_name
    ]
    rows = tuple(
        (f"{MARK[stage.effect]:>3} {stage.kind} {stage.name}", _why(stage)) for stage in shown
    )
    same = len(diff.stages) - len(shown)
    lines = (f"  = {same} more, served by A's artifacts",) if same and shown else ()
    return Section("Stages of B after A", (), rows, lines, detail=True)


def _why(stage: StageDiff) -> str:
    parts = [
        f"was {stage.old_name}" if stage.old_name else "",
        stage.why or (stage.effect if stage.effect in ("added", "removed") else ""),
    ]
    return "; ".join(part for part in parts if part)


def _price(diff: Diff) -> Section:
    sides = (diff.price.a, diff.price.b, diff.price.reused, diff.price.after)
    rows = totals_rows(sides)
    missing = max(side.not_estimated for side in sides[:2])
    lines = [f"B {spread(diff.price.b.seconds)}"] if diff.price.b.seconds.mid is not None else []
    lines += (
        [f"{missing} stage{'' if missing == 1 else 's'} not fully estimated"] if missing else []
    )
    unknown = _untimed((("A", diff.price.untimed_a), ("B", diff.price.untimed_b)))
    header = ("Cost", "A from scratch", "B from scratch", "B takes over", "B after A")
    return Section(
        "", header, rows, (*([" · ".join(lines)] if lines else []), *unknown), numbers=True
    )


def _untimed(sides: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """Which stages the sums leave out, since their time is not known."""
    by_stages: dict[str, list[str]] = {}
    for name, stages in sides:
        if stages:
            by_stages.setdefault(", ".join(stages), []).append(name)
    said = [f"{stages} of {', '.join(names)}" for stages, names in by_stages.items()]
    return (f"Sums leave out {'; '.join(said)}: how long is not known.",) if said else ()


def totals_rows(sides: Sequence[Totals]) -> tuple[tuple[str, ...], ...]:
    """What is told of totals, a column each."""
    metrics: list[tuple[str, Callable[[Totals], Estimate | Money]]] = [
        ("rows sampled", lambda totals: totals.rows_sampled),
        ("tokens", lambda totals: totals.tokens),
        ("time", lambda totals: totals.seconds),
    ]
    if any(side.gpu_hours.mid != 0 for side in sides):
        metrics += [
            ("GPU-hours", lambda totals: totals.gpu_hours),
            ("dollars", lambda totals: totals.usd),
        ]
    return tuple((title, *(text(number(side)) for side in sides)) for title, number in metrics)


# ---- rows and results --------------------------------------------------------------------------


def _rows(stage: str, sources: Sequence[RowsOfSource]) -> Section:
    rows = tuple(
        (
            item.source or "-",
            f"{item.common:,}",
            f"{item.only_a:,}",
            f"{item.only_b:,}",
            _reasons(item),
        )
        for item in sources
    )
    return Section(f"Rows of {stage}", ("source", "common", "only A", "only B", "why"), rows)


def _reasons(item: RowsOfSource) -> str:
    sides = (("not in B", item.why_not_b), ("not in A", item.why_not_a))
    return "; ".join(
        f"{side}: {', '.join(f'{reason} {count:,}' for reason, count in counts.items())}"
        for side, counts in sides
        if counts
    )


def results_sections(results: Sequence[ResultDiff]) -> Iterator[Section]:
    """Accuracy of both with the gain, tokens beside it, and what a point costs where one was gained and something paid."""
    header = ("Results", "A", "B", "B - A, points", "tokens A", "tokens B")
    rows = [
        (
            item.benchmark,
            accuracy(item.a),
            accuracy(item.b),
            f"{_points(item.gain)}{'' if item.paired else ' unpaired'}",
            _tokens(item.tokens_a),
            _tokens(item.tokens_b),
        )
        for item in results
    ]
    costs = [(item.benchmark, _cost_of_point(item)) for item in results]
    lines = [
        "95% intervals over questions and seeds; paired where both answered the same questions."
    ]
    lines += [f"A point of {name} costs {cost} more." for name, cost in costs if cost]
    yield Section("", header, tuple(rows), tuple(lines) if rows else (), numbers=True)


def accuracy(found: Measured) -> str:
    """``61.3% (55.1 – 67.2)``."""
    if found.lo is None or found.hi is None:
        return f"{found.mean:.1%}"
    return f"{found.mean:.1%} ({100 * found.lo:.1f} – {100 * found.hi:.1f})"


def _points(found: Measured) -> str:
    if found.lo is None or found.hi is None:
        return f"{100 * found.mean:+.1f}"
    return f"{100 * found.mean:+.1f} ({100 * found.lo:+.1f} – {100 * found.hi:+.1f})"


def _tokens(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _cost_of_point(item: ResultDiff) -> str:
    if item.usd_per_point is not None:
        return f"${item.usd_per_point}"
    return "" if item.gpu_hours_per_point is None else f"{item.gpu_hours_per_point:.1f} GPU-hours"


# ---- several recipes ---------------------------------------------------------------------------


def study_sections(study: Study) -> Iterator[Section]:
    """One column a recipe: the factors that vary, each verdict against the first, costs in the cheapest order."""
    names = tuple(letter(number) for number in range(len(study.columns)))
    yield Section("", (), tuple(zip(names, (c.name for c in study.columns), strict=True)))
    if study.factors:
        values = tuple(
            (factor, *(column.values[row] for column in study.columns))
            for row, factor in enumerate(study.factors)
        )
        yield Section("", ("Factors", *names), values)
    yield from _scores(study, names)
    against = tuple((names[n], diff.verdict.text) for n, diff in enumerate(study.diffs, start=1))
    yield Section("Against A", (), against)
    for number, diff in enumerate(study.diffs, start=1):
        section = _moves(f"Moves along from A to {names[number]}", diff, "confound")
        if section.rows:
            yield section
    yield from _study_results(study, names)
    yield from _study_price(study, names)


def _scores(study: Study, names: Sequence[str]) -> Iterator[Section]:
    """Accuracy of every recipe by eval, with the tokens of a response beside it."""
    evals = dict.fromkeys(score.stage for column in study.columns for score in column.scores)
    if not evals:
        return
    rows = []
    for name in evals:
        found = [next((s for s in c.scores if s.stage == name), None) for c in study.columns]
        rows.append((name, *("-" if s is None else accuracy(s.accuracy) for s in found)))
        rows.append(
            ("  response tokens", *("-" if s is None else _tokens(s.tokens) for s in found))
        )
    seeds = "one seed" if study.seeds == 1 else f"{study.seeds} training seeds"
    lines = [f"95% intervals over questions and {seeds}."]
    if study.executed is not None:
        lines.append(
            f"{study.executed} stages executed; without sharing there would be {study.without_sharing}."
        )
    yield Section("", ("Results", *names), tuple(rows), tuple(lines), numbers=True)


def _study_results(study: Study, names: Sequence[str]) -> Iterator[Section]:
    for number, diff in enumerate(study.diffs, start=1):
        for section in results_sections(diff.results):
            if section.rows:
                header = tuple(cell.replace("B", names[number]) for cell in section.header)
                yield Section("", header, section.rows, section.lines, numbers=True)


def _study_price(study: Study, names: Sequence[str]) -> Iterator[Section]:
    scratch = totals_rows([column.scratch for column in study.columns])
    unknown = _untimed([(n, c.untimed) for n, c in zip(names, study.columns, strict=True)])
    yield Section("", ("From scratch", *names), scratch, unknown, numbers=True)
    by_name = dict(zip((column.name for column in study.columns), names, strict=True))
    order = [by_name[name] for name in study.order]
    columns = [next(c for c in study.columns if c.name == name) for name in study.order]
    sums, titles = [study.together], ["together"]
    if study.under_seeds is not None:
        sums, titles = [*sums, study.under_seeds], [*titles, f"{study.seeds} seeds"]
    added = totals_rows([*(column.marginal for column in columns), *sums])
    shared = f"{study.shared_stages} stages are shared by all and paid once."
    yield Section("", ("In this order", *order, *titles), added, (shared,), numbers=True)


def letter(number: int) -> str:
    """``A``, ``B``, … and after ``Z`` numbers."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)
