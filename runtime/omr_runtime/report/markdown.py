"""A report's facts to Markdown, for a model card or a pull request: the same tables as the page, without pictures and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from omr_runtime.report.axis import number_text
from omr_runtime.report.facts import Facts
from omr_runtime.report.page import Against, headline, took_text
from omr_runtime.report.tournament import Cell

MOST_REASONS = 4


def markdown(facts: Facts, against: Against | None = None) -> str:
    """Headings from the second level on, so that it can stand within another page."""
    parts = [
        f"{headline(facts)}\n\n{_meta(facts)}",
        _section("Results", _results(facts)),
        _section("The same items, pair by pair", _pairs(facts)),
        _section("Tournament", _tournament(facts), _notes(facts)),
        _section("Funnel", _funnel(facts)),
        _section("What the rows are made of", _mixes(facts)),
        _section("Training", _training(facts)),
        _section("Estimate against actual", _guesses(facts)),
    ]
    if against is not None:
        parts.append(f"## Against {against.name}\n\n```text\n{against.text.strip()}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: Sequence[Sequence[str]], right: int = 1, texts: int = 0) -> str:
    """The first row is the head; columns from ``right`` on hold numbers, but for the last ``texts``. Empty where there is
    no other row.

    >>> print(table([["a", "b"], ["x|y", "1"]]))
    | a | b |
    | --- | ---: |
    | x\\|y | 1 |
    """
    if len(rows) < 2:
        return ""
    head, *rest = rows
    numbers = range(right, len(head) - texts)
    rule = ["---:" if n in numbers else "---" for n in range(len(head))]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (head, rule, *rest))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _section(title: str, text: str, more: str = "") -> str:
    return f"## {title}\n\n{text}" + (f"\n\n{more}" if more else "") if text else ""


def _meta(facts: Facts) -> str:
    plan = facts.ran.plan
    runs = [f"run {ident}, {took_text(start, end)}" for ident, start, end, _ in facts.runs if end]
    why = [f"because {plan.because}"] if plan.because else []
    return " · ".join([f"`{plan.recipe}`", *why, f"seed {plan.seed}", *runs])


def _results(facts: Facts) -> str:
    head = ["eval", "questions", "accuracy", "95% interval", "response tokens", "in the format"]
    rows = [head]
    for stage in facts.ran.evals:
        it = facts.ran.entries[stage.name].get("metrics", {})
        if "accuracy" in it:
            rows.append([stage.name, f"{it['num_questions']:,}", *_figures(it)])
    return table(rows)


def _figures(it: dict[str, Any]) -> list[str]:
    return [
        f"{it['accuracy']:.1%}",
        f"{100 * it['accuracy_lo']:.1f} – {100 * it['accuracy_hi']:.1f}%",
        _given(it.get("mean_response_tokens"), ".1f"),
        _given(it.get("format_rate"), ".1%"),
    ]


def _given(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _pairs(facts: Facts) -> str:
    rows = [["A", "B", "same items", "B − A, points", "95% interval"]]
    for it in facts.versus:
        of = it.found
        ends = f"{100 * of.lo:+.1f} … {100 * of.hi:+.1f}"
        rows.append([it.a, it.b, f"{of.num_items:,}", f"{100 * of.difference:+.1f}", ends])
    return table(rows, right=2)


def _tournament(facts: Facts) -> str:
    of = facts.tournament
    rows = [["model", "", *(["mean"] if of.has_mean else []), *of.columns]]
    for line in of.lines:
        mean = line.mean(of.columns)
        given = line.origin in of.origins
        kind = f"{line.kind} {of.origins.index(line.origin) + 1}" if given else line.kind
        cells = [_score(line.cells.get(column)) for column in of.columns]
        rows.append([line.name, kind, *([_given(mean, ".1f")] if of.has_mean else []), *cells])
    return table(rows, right=2)


def _score(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    span = f" ({cell.lo:.1f}–{cell.hi:.1f})" if cell.lo is not None and cell.hi is not None else ""
    return f"{cell.value:.1f}{span}"


def _notes(facts: Facts) -> str:
    of = facts.tournament
    return "\n".join(
        [*(f"{n}. {o}" for n, o in enumerate(of.origins, 1)), *map("- {}".format, of.notes)]
    )


def _funnel(facts: Facts) -> str:
    rows = [["stage", "in", "kept", "dropped", "why"]]
    for it in facts.funnels:
        why = [f"{drop.num:,} × {drop.reason}" for drop in it.drops[:MOST_REASONS]]
        more = (
            [f"{len(it.drops) - MOST_REASONS} more reasons"] if len(it.drops) > MOST_REASONS else []
        )
        counts = (it.num_in, it.num_kept, it.num_in - it.num_kept)
        rows.append(
            [f"{it.kind} {it.stage}", *(f"{num:,}" for num in counts), "; ".join([*why, *more])]
        )
    return table(rows, texts=1)


def _mixes(facts: Facts) -> str:
    rows = [["stage", "source", "rows", "share", "distinct questions", "response tokens"]]
    for it in facts.mixes:
        for of in it.sources:
            counts = (f"{of.rows:,}", f"{of.rows / it.num_rows:.1%}", f"{of.questions:,}")
            tokens = f"{of.tokens:,}" if of.tokens else "–"
            rows.append([f"{it.kind} {it.stage}", of.source or "without a source", *counts, tokens])
    return table(rows, right=2)


def _training(facts: Facts) -> str:
    rows = [["stage", "figure", "first", "mean of the last tenth", "steps"]]
    for it in facts.trained:
        for n, curve in enumerate(it.curves):
            first, last = number_text(curve.values[0]), number_text(curve.last_mean)
            name = f"{it.kind} {it.stage}" if n == 0 else ""
            rows.append([name, curve.label, first, last, f"{len(curve.values):,}"])
    return table(rows, right=2)


def _guesses(facts: Facts) -> str:
    return table(
        [["stage", "", "planned", "range", "origin", "actual"], *_guess_rows(facts)], right=2
    )


def _guess_rows(facts: Facts) -> Iterator[list[str]]:
    for it in facts.guesses:
        lo, mid, hi, actual = map(number_text, (it.lo, it.mid, it.hi, it.actual))
        mark = "" if it.inside else " (outside)"
        yield [it.stage, it.metric, mid, f"{lo} – {hi}", it.origin, f"{actual}{mark}"]
