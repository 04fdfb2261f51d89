"""Rows to those that ``keep`` lets through, each with its verdicts; what is dropped leaves its reason.

A row that nobody could decide is neither kept nor dropped: all others are committed, the stage ends resumable, and
the next run asks again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omr_runtime.errors import Resumable
from omr_runtime.near import FORMS, measures
from omr_runtime.verify.cap import Cap, group_of_parent
from omr_runtime.verify.cascade import Outcome, Verdict
from omr_runtime.verify.interpret import Row
from omr_runtime.verify.judging import Judge, judging
from omr_runtime.verify.slices import Decided, Slice, decided, slices, slicing
from omr_runtime.work import ROW, Progress, Shards, Work, finish
from omrlang.schema import Filter
from omrlang.types import Near

JUDGED = "judged"
"""Where rows wait that `keep` let through, until it is known which of them are near duplicates."""


@dataclass(slots=True)
class Tables:
    """What one shard of a filter holds; ``undecided`` counts rows that are in none of them, by why."""

    row: list[Row] = field(default_factory=list)
    verdict: list[Verdict] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    tally: list[dict[str, Any]] = field(default_factory=list)
    undecided: Counter[str] = field(default_factory=Counter)


def run(work: Work) -> None:
    """Decide all rows that no shard has decided yet. Raises Resumable when some stay undecided.

    Near duplicates are looked for among all rows that `keep` lets through, so those wait in a folder of their own.
    """
    spec = work.stage.spec
    assert isinstance(spec, Filter), "the driver starts the module of the stage's kind"
    cap = Cap(int(spec.at_most.value), spec.seed) if spec.at_most else None
    near = spec.unique if isinstance(spec.unique, Near) else None
    compared = measures(near, work) if near else []
    shards = Shards(Path(work.out) / JUDGED if near else work.out)
    with judging(work, spec.keep) as judge:
        undecided = _decide_all(work, judge, None if near else cap, shards)
    if undecided:
        number, why = undecided.total(), undecided.most_common(1)[0][0]
        raise Resumable(
            f"{number:,} rows are undecided, mostly because: {why}; all others are committed"
        )
    if near:
        from omr_runtime.near.thin import thin

        thin(work, near, compared, cap, shards)
    finish(work, {})
    for folder in (JUDGED, FORMS):
        shutil.rmtree(Path(work.out) / folder, ignore_errors=True)


def _group_of_row(row: Row) -> str:
    return str(row["id"])


def _decide_all(work: Work, judge: Judge, cap: Cap | None, shards: Shards) -> Counter[str]:
    group_of = group_of_parent if cap else _group_of_row
    cut = slicing(work.inputs, group_of)
    known = decided(shards, group_of)
    taken = shards.numbers()
    progress, num_done = Progress(work.progress), known.total
    undecided: Counter[str] = Counter()
    progress.update(num_done, cut.total, "rows")
    for part, outcomes in judge(slices(work.inputs, cut, known, group_of)):
        tables = tables_of(outcomes, cap, known)
        undecided += tables.undecided
        _write(shards, _shard_number(part, taken, len(cut.num_rows)), taken, tables)
        num_done += len(part.rows)
        progress.update(num_done, cut.total, "rows")
    return undecided


def _shard_number(part: Slice, taken: set[int], num_slices: int) -> int:
    """The slice's own number, or, for what an earlier run left undecided, the next one after all slices."""
    if part.number not in taken:
        return part.number
    return max([num_slices - 1, *taken]) + 1


def _write(shards: Shards, number: int, taken: set[int], tables: Tables) -> None:
    if tables.row or tables.dropped:
        shards.write(
            number,
            {
                "row": [{name: row.get(name) for name in ROW.names} for row in tables.row],
                "verdict": tables.verdict,
                "dropped": tables.dropped,
                "tally": tables.tally,
            },
        )
        taken.add(number)


# ---- one slice -------------------------------------------------------------------------------------------------


def tables_of(outcomes: Sequence[Outcome], cap: Cap | None, known: Decided) -> Tables:
    """The verdicts on one slice. Rows over the cap are known only once all of their group are decided."""
    held = _over_cap(outcomes, cap, known) if cap else {}
    tables = Tables()
    for outcome in outcomes:
        row_id = outcome.row["id"]
        if outcome.undecided or held.get(row_id, 0) is None:
            tables.undecided[_why_undecided(outcome)] += 1
        else:
            _add(tables, outcome, cap, held.get(row_id, False) is True)
    tables.tally = _tally(tables, outcomes)
    return tables


def _add(tables: Tables, outcome: Outcome, cap: Cap | None, over: bool) -> None:
    tables.verdict += outcome.verdicts
    reason = outcome.reason
    if cap and outcome.value is True:
        tables.verdict.append(cap.verdict(outcome.row["id"], over))
        reason = cap.text if over else None
    if reason is None:
        tables.row.append(outcome.row)
    else:
        dropped = {"row": outcome.row["id"], "source": outcome.row.get("source"), "reason": reason}
        tables.dropped.append(dropped)


def _over_cap(outcomes: Sequence[Outcome], cap: Cap, known: Decided) -> dict[str, bool | None]:
    """For each row that passes: whether the cap drops it; None while that hangs on undecided rows of its group."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(group_of_parent(outcome.row), []).append(outcome)
    kept_before = _kept_by_group(known, groups)
    result: dict[str, bool | None] = {}
    for group, members in groups.items():
        passed = {m.row["id"]: cap.key(m.row["id"]) for m in members if m.value is True}
        unsure = [cap.key(m.row["id"]) for m in members if m.undecided]
        before = [cap.key(row) for row in kept_before.get(group, ())]
        for row, key in passed.items():
            rank = sum(other < key for other in (*passed.values(), *before))
            worst = rank + sum(other < key for other in unsure)
            result[row] = True if rank >= cap.limit else (False if worst < cap.limit else None)
    return result


def _kept_by_group(known: Decided, groups: Iterable[str]) -> dict[str, list[str]]:
    wanted = set(groups)
    found: dict[str, list[str]] = {}
    for row, group in known.kept.items():
        if group in wanted:
            found.setdefault(group, []).append(row)
    return found


def _why_undecided(outcome: Outcome) -> str:
    reasons = [v["reason"] or v["rule"] for v in outcome.verdicts if v["ok"] is None]
    return reasons[0] if reasons else "another sample of the question is undecided"


def _tally(tables: Tables, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """By question: how many samples were judged, and how many of them `keep` let through."""
    written = {row["id"] for row in tables.row} | {line["row"] for line in tables.dropped}
    kept: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    for outcome in outcomes:
        if outcome.row["id"] in written:
            content = outcome.row.get("content") or ""
            judged[content] += 1
            kept[content] += outcome.value is True
    return [
        {"content": content, "num_kept": kept[content], "num_judged": number}
        for content, number in judged.items()
    ]
