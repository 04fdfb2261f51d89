"""Rows and what is enough -> how many samples of each there are, asked in rounds of the number that is still lacking.

The samples of a question are drawn in order of their index. A row that lacks k of what is enough asks for its next k, so
that none is drawn beyond the last one needed: how many there are hangs on the verdicts alone. What a round found is
kept in shards of its own before the next one begins; a run that goes on reads them and comes to the same rounds.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from omr_runtime.errors import RunError
from omr_runtime.ledger import Ledger
from omr_runtime.questions import Row, SpanOf
from omr_runtime.verify.cascade import Outcome, Verdict
from omr_runtime.verify.judging import Judge, judging
from omr_runtime.verify.slices import Slice
from omr_runtime.work import Shards, read_table
from omrlang.types import Enough

FIRST_SHARD = 50_000
"""Verdicts have shards of their own, after all those of rows."""

SLICE_ROWS = 4_096
UNKNOWN = "unknown, which counts as not satisfied"
FAILED = "not sampled: "


@dataclass(slots=True)
class Drawn:
    """By the number of the row: samples that were asked, and those of them that satisfy. ``lost`` are the ids of samples
    that could not be had, with their reasons; ``unknown`` counts verdicts that nobody could give."""

    asked: array[int]
    passed: array[int]
    lost: dict[str, str] = field(default_factory=dict)
    unknown: int = 0

    @staticmethod
    def of(num_rows: int) -> Drawn:
        return Drawn(array("q", bytes(8 * num_rows)), array("q", bytes(8 * num_rows)))

    def span(self, number: int) -> range:
        """The samples of a row that there are."""
        return range(self.asked[number])


def draw_until(ledger: Ledger, enough: Enough, n: int, shards: Shards) -> Drawn:
    """Ask until each row has enough samples that satisfy, or ``n``. Raises what asking raises, and RunError when not one
    sample of the first could be had."""
    drawn = Drawn.of(len(ledger.questions))
    shard = FIRST_SHARD
    with judging(ledger.work, enough.of, ledger.prompt) as judge:
        while lacking := _lacking(drawn, enough.count, n):
            shard = _Round(ledger, enough, drawn, lacking, shards, shard).run(judge)
    return drawn


def _lacking(drawn: Drawn, count: int, n: int) -> dict[int, range]:
    """The next samples of each row that has not enough."""
    found = {}
    for number, (asked, passed) in enumerate(zip(drawn.asked, drawn.passed, strict=True)):
        if passed < count and asked < n:
            found[number] = range(asked, min(n, asked + count - passed))
    return found


@dataclass(slots=True)
class _Round:
    """One round. ``first`` is the shard of its first slice."""

    ledger: Ledger
    enough: Enough
    drawn: Drawn
    spans: dict[int, range]
    shards: Shards
    first: int
    waiting: dict[int, list[tuple[int, Row]]] = field(default_factory=dict)

    def run(self, judge: Judge) -> int:
        """Ask, judge, count; the shard after those of this round."""
        span_of: SpanOf = lambda number: self.spans.get(number, range(0))  # noqa: E731
        num_samples = sum(map(len, self.spans.values()))
        end = self.first + -(-num_samples // SLICE_ROWS)
        if not {*range(self.first, end)} <= self.shards.numbers():
            self.ledger.ask(span_of, sum(self.drawn.asked) + num_samples)
        for part, outcomes in judge(self._undecided(span_of)):
            self._write(part.number, outcomes)
        for number, span in self.spans.items():
            self.drawn.asked[number] += len(span)
        return end

    def _undecided(self, span_of: SpanOf) -> Iterator[Slice]:
        """The slices that no shard has decided; those that one has are counted as they pass."""
        done = self.shards.numbers()
        numbers = (number for number in sorted(self.spans) for _ in self.spans[number])
        samples = zip(numbers, self.ledger.samples(span_of), strict=True)
        shard = self.first
        while part := list(islice(samples, SLICE_ROWS)):
            if shard in done:
                self._count(part, *self._read(shard))
            else:
                self.waiting[shard] = part
                yield Slice(shard, [row for _, row in part if row["finish"] != "error"])
            shard += 1

    def _write(self, shard: int, outcomes: list[Outcome]) -> None:
        part = self.waiting.pop(shard)
        failed = [row for _, row in part if row["finish"] == "error"]
        if not outcomes and shard == FIRST_SHARD:
            raise RunError(_all_failed(self.ledger.work.stage.address, failed))
        verdicts = [line for outcome in outcomes for line in _verdicts(outcome, self.enough)]
        dropped = [
            {"row": row["id"], "source": row.get("source"), "reason": f"{FAILED}{row['error']}"}
            for row in failed
        ]
        self.shards.write(shard, {"verdict": verdicts, "dropped": dropped})
        self._count(part, verdicts, dropped)

    def _read(self, shard: int) -> tuple[list[Verdict], list[dict[str, Any]]]:
        files = next(found.files for found in self.shards.read() if found.number == shard)
        return list(read_table(files["verdict"])), list(read_table(files["dropped"]))

    def _count(
        self, part: list[tuple[int, Row]], verdicts: list[Verdict], dropped: list[dict[str, Any]]
    ) -> None:
        whole = {line["row"]: line["ok"] for line in verdicts if line["rule"] == _rule(self.enough)}
        for number, row in part:
            self.drawn.passed[number] += whole.get(row["id"]) is True
        self.drawn.unknown += sum(ok is None for ok in whole.values())
        self.drawn.lost.update(
            {line["row"]: line["reason"].removeprefix(FAILED) for line in dropped}
        )


def _rule(enough: Enough) -> str:
    return f"until {enough.text}"


def _verdicts(outcome: Outcome, enough: Enough) -> list[Verdict]:
    """What was asked, and last whether the sample counts."""
    reason = outcome.reason
    if outcome.undecided:
        why = next((v["reason"] for v in outcome.verdicts if v["ok"] is None and v["reason"]), None)
        reason = UNKNOWN if why is None else f"{UNKNOWN}: {why}"
    ok = None if outcome.undecided else outcome.value is True
    whole = {"row": outcome.row["id"], "rule": _rule(enough), "ok": ok, "reason": reason, "score": None}  # fmt: skip
    return [*outcome.verdicts, whole]


def _all_failed(address: str, failed: list[Row]) -> str:
    reason, number = Counter(row["error"] for row in failed).most_common(1)[0]
    return f"{address}: no sample could be had; {number:,} of {len(failed):,}: {reason}"
