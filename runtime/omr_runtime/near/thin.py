"""Shards of rows that a filter lets through to its shards, one for one, without near duplicates and rows over the cap.

Every row that goes keeps who stays for it as an edge, and whom it is like, and how much, as a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omr_runtime.near import FORMS, like
from omr_runtime.near.encoding import encode
from omr_runtime.near.measure import Measure
from omr_runtime.near.relations import Repeats, repeats
from omr_runtime.verify.cap import Cap
from omr_runtime.verify.interpret import Row
from omr_runtime.verify.tokens import TokenCounter
from omr_runtime.work import Progress, Shard, Shards, Work, read_table
from omrlang.types import Near


@dataclass(frozen=True, slots=True)
class _Thinning:
    near: Near
    found: Repeats
    cap: Cap | None
    over: set[str]


def thin(
    work: Work, near: Near, measures: Sequence[Measure], cap: Cap | None, judged: Shards
) -> None:
    """Write the shards that are not there yet."""
    parts, folder = judged.read(), Path(work.out) / FORMS
    if not parts:
        return
    progress = Progress(work.progress)
    files = [part.files["row"] for part in parts]
    count = TokenCounter(work)
    forms = encode(near, measures, files, folder, work.stage.spec.seed, count, progress)
    with repeats(near, measures, forms, folder) as found:
        over = cap.over(_left(files, found)) if cap else set()
        plan = _Thinning(near, found, cap, over)
        shards = Shards(work.out)
        finished = shards.numbers()
        for place, part in enumerate(parts):
            if part.number not in finished:
                shards.write(part.number, _thinned(plan, place, part))
            progress.update(place + 1, len(parts), "shards")


def _left(files: Sequence[Path], found: Repeats) -> Iterator[Row]:
    """Rows that no other stands for."""
    for place, file in enumerate(files):
        gone = found.of(place)
        for spot, row in enumerate(read_table(file, ["id", "parent"])):
            if spot not in gone:
                yield row


def _thinned(plan: _Thinning, place: int, part: Shard) -> dict[str, list[dict[str, Any]]]:
    """The tables of one shard."""
    gone = plan.found.of(place)
    tables = {
        name: list(read_table(part.files[name])) for name in ("verdict", "dropped", "tally")
    } | {"row": [], "edge": []}
    for spot, row in enumerate(read_table(part.files["row"])):
        repeat = gone.get(spot)
        tables["verdict"].append(verdict(plan.near, row["id"], repeat))
        if repeat is not None:
            tables["edge"].append(edge(repeat))
        elif plan.cap is not None:
            tables["verdict"].append(plan.cap.verdict(row["id"], row["id"] in plan.over))
        reason = _reason(plan, row, repeat)
        if reason is None:
            tables["row"].append(row)
        else:
            dropped = {"row": row["id"], "source": row["source"], "reason": reason}
            tables["dropped"].append(dropped)
    return tables


def _reason(plan: _Thinning, row: Row, repeat: Mapping[str, Any] | None) -> str | None:
    if repeat is not None:
        return plan.near.rule
    return plan.cap.text if plan.cap is not None and row["id"] in plan.over else None


def verdict(near: Near, row: str, repeat: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is said of a row: none is like it that stays, or whom it is like, and how much."""
    said = {"row": row, "rule": near.rule, "ok": repeat is None, "reason": None, "score": None}
    if repeat is None:
        return said
    return said | {"reason": like(repeat["via"], repeat["stays"]), "score": repeat["alike"]}


def edge(repeat: Mapping[str, Any]) -> dict[str, Any]:
    """From a row that goes to the one that stays for it."""
    return {"child": repeat["row"], "parent": repeat["stays"], "role": "duplicate_of"}
