"""Rows and a teacher to traces: ``n`` rows for each input row, whatever failed dropped with its reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from omr_runtime.engines.protocol import Decoding
from omr_runtime.errors import RunError
from omr_runtime.ledger import Ledger, ledger_name
from omr_runtime.questions import Row
from omr_runtime.stages.enough import Drawn, draw_until
from omr_runtime.work import Rows, Shards, Work, finish
from omrlang.schema import Sample

SLICE_ROWS = 4_096


@dataclass(slots=True)
class Tally:
    """What the stage's record says of its samples."""

    num_samples: int = 0
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_lengths: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def count(self, row: Row) -> None:
        self.num_samples += 1
        self.num_tokens += row["num_tokens"] or 0
        self.num_prompt_tokens += row.get("num_prompt_tokens") or 0
        self.num_lengths += row["finish"] == "length"
        if row["finish"] == "error":
            self.failures[row["error"]] += 1

    @property
    def num_answered(self) -> int:
        return self.num_samples - self.failures.total()


def run(work: Work) -> None:
    """Sample what is missing, then write all rows in order. Raises RunError when not one sample could be had."""
    spec = work.stage.spec
    assert isinstance(spec, Sample), "the driver starts the module of the stage's kind"
    started = time.monotonic()
    shards, tally = Shards(work.out), Tally()
    with Ledger.of(work, Rows(work.inputs), spec.prompt, spec.model, decoding(spec)) as ledger:
        drawn = _ask(ledger, spec, shards)
    if drawn is None:
        _write(work, shards, ledger.samples(lambda number: range(spec.n)), tally)
    else:
        _write(work, shards, _without(ledger.samples(drawn.span), drawn.lost), tally, drawn.lost)
    early = {} if drawn is None else _early(drawn, spec.n)
    name = ledger_name(work, spec.model, decoding(spec))
    finish(work, {"ledger": name, **_summary(tally, time.monotonic() - started, early)})


def _ask(ledger: Ledger, spec: Sample, shards: Shards) -> Drawn | None:
    """Have all samples there; how many each row has where the stage stops early."""
    if spec.until is not None:
        return draw_until(ledger, spec.until, spec.n, shards)
    ledger.ask(lambda number: range(spec.n), len(ledger.questions) * spec.n)
    return None


def _write(
    work: Work, shards: Shards, samples: Iterator[Row], tally: Tally, lost: Iterable[str] = ()
) -> None:
    """The rows in slices that are the same in every run. ``lost`` are dropped already, with their reason."""
    there, gone = shards.numbers(), frozenset(lost)
    for number, part in enumerate(_slices(samples)):
        for row in part:
            tally.count(row)
        if not tally.num_answered:
            raise RunError(_all_failed(work, tally))
        if number not in there:
            made = tables(part)
            made["dropped"] = [line for line in made["dropped"] if line["row"] not in gone]
            shards.write(number, made)


def _without(samples: Iterator[Row], lost: Mapping[str, str]) -> Iterator[Row]:
    """A sample that could not be had when it was asked is none of the stage's rows, whoever had it since."""
    for row in samples:
        reason = lost.get(row["id"])
        yield row if reason is None else row | {"finish": "error", "error": reason}


def _early(drawn: Drawn, n: int) -> dict[str, float]:
    """What early stopping did, for the stage's record."""
    questions = max(len(drawn.asked), 1)
    stopped = sum(asked < n for asked in drawn.asked) / questions
    unknown = drawn.unknown / max(sum(drawn.asked), 1)
    return {
        "stopped_early": stopped,
        "samples_each": sum(drawn.asked) / questions,
        "unknown": unknown,
    }


def decoding(spec: Sample) -> Decoding:
    return Decoding(
        temperature=spec.temperature,
        max_tokens=spec.max_tokens,
        top_p=spec.top_p,
        top_k=spec.top_k,
        min_pixels=spec.min_pixels,
        max_pixels=spec.max_pixels,
    )


def tables(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """What a shard holds of these samples: rows with their edges, and the failed ones as dropped."""
    kept, edges, dropped = [], [], []
    for row in rows:
        if row["finish"] == "error":
            reason = f"not sampled: {row['error']}"
            dropped.append({"row": row["id"], "source": row["source"], "reason": reason})
        else:
            kept.append(row)
        edges.append({"child": row["id"], "parent": row["parent"], "role": "sampled_from"})
    return {"row": kept, "edge": edges, "dropped": dropped}


def _slices(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while part := list(islice(rows, SLICE_ROWS)):
        yield part


def _summary(tally: Tally, elapsed_s: float, early: Mapping[str, float]) -> dict[str, Any]:
    answered = max(tally.num_answered, 1)
    return {
        "num_in": tally.num_samples,
        "tokens": tally.num_tokens,
        "mean_response_tokens": tally.num_tokens / answered,
        "mean_prompt_tokens": tally.num_prompt_tokens / answered or None,
        "num_failed": tally.failures.total(),
        "metrics": {
            "cut_short": tally.num_lengths / answered,
            "failed": tally.failures.total() / max(tally.num_samples, 1),
            **early,
        },
    }


def _all_failed(work: Work, tally: Tally) -> str:
    reason, number = tally.failures.most_common(1)[0]
    return f"{work.stage.address}: no sample could be had; {number:,} of {tally.num_samples:,}: {reason}"
