"""Benchmarks to answers, each a row with its verdicts, and the accuracy of all and of each benchmark.

Generation goes through the ledger, as for ``sample``: what was answered before is not asked again. An answer that
could not be had is dropped with its reason and counted; accuracy is over those that were had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from omr_runtime.engines.protocol import Decoding
from omr_runtime.errors import Resumable, RunError
from omr_runtime.verify.cascade import Outcome, Verdict
from omr_runtime.verify.interpret import Row
from omr_runtime.verify.judging import Judge, judging
from omr_runtime.verify.measuring import figures, measure_rows, questions_of
from omr_runtime.verify.slices import Slice
from omr_runtime.work import ROW, Progress, Shards, Work, finish, read_rows, read_table
from omrlang.expressions import row_expression
from omrlang.schema import Eval
from omrlang.types import Call, RowExpr

SLICE_ROWS = 1_000
METRICS_SHARD = 99_999
"""The number of the shard that holds the metrics: after all others, written when all answers are scored."""


def run(work: Work) -> None:
    """Answer, score, measure. Raises Resumable when some answers could not be scored."""
    spec = work.stage.spec
    assert isinstance(spec, Eval), "the driver starts the module of the stage's kind"
    score = spec.score or default_score()
    shards = Shards(work.out)
    with judging(work, score, spec.prompt) as judge:
        undecided = _score_all(work, spec, score, judge, shards)
    if undecided:
        why = undecided.most_common(1)[0][0]
        raise Resumable(f"{undecided.total():,} answers are not scored, mostly because: {why}")
    metrics = _measure_all(work, spec, score, shards)
    if METRICS_SHARD not in shards.numbers():
        shards.write(METRICS_SHARD, {"metric": metric_lines(metrics)})
    tokens = {"mean_response_tokens": metrics.get("mean_response_tokens")}
    num_in = int(metrics.get("num_answers", 0) + metrics["num_failed"])
    from omr_runtime.ledger import ledger_name

    ledger = ledger_name(work, spec.model, decoding(spec))
    finish(work, {"num_in": num_in, "metrics": metrics, "ledger": ledger, **tokens})


def default_score() -> RowExpr:
    """What counts as right where the recipe does not say."""
    return row_expression(Call(fn="answer_matches"), "answer_matches", "bool", ["answer_matches"])


def decoding(spec: Eval) -> Decoding:
    return Decoding(
        temperature=spec.temperature,
        max_tokens=spec.max_tokens,
        top_p=spec.top_p,
        top_k=spec.top_k,
        min_pixels=spec.min_pixels,
        max_pixels=spec.max_pixels,
    )


# ---- scoring ---------------------------------------------------------------------------------------------------


def _score_all(
    work: Work, spec: Eval, score: RowExpr, judge: Judge, shards: Shards
) -> Counter[str]:
    """Score the answers that no shard holds, slice by slice; those that stay unscored, by why.

    RunError where the model answers nothing at all: then nothing is written, and the next run asks anew.
    """
    from omr_runtime.ledger import sample_rows

    known = {row["id"] for row in lines(shards, "row", ["id"])}
    known |= {line["row"] for line in lines(shards, "dropped", ["row"])}
    questions = list(read_rows(work.inputs))
    answers = sample_rows(work, questions, spec.prompt, spec.model, decoding(spec), spec.n)
    progress, total = Progress(work.progress), len(questions) * spec.n
    undecided: Counter[str] = Counter()
    failed: dict[int, list[Row]] = {}
    num_done = len(known)
    for part, outcomes in judge(_unscored(answers, known, failed)):
        lost = failed.pop(part.number)
        undecided += _write_scores(outcomes, lost, score, part.number, shards)
        num_done += len(outcomes) + len(lost)
        progress.update(num_done, total, "answers scored")
    return undecided


def _unscored(
    answers: Iterable[Row], known: set[str], failed: dict[int, list[Row]]
) -> Iterator[Slice]:
    """Slices with their new answers; what was not answered goes to ``failed`` under the number of its slice."""
    any_answered = False
    for number, part in enumerate(_slices(answers)):
        any_answered = any_answered or any(row["finish"] != "error" for row in part)
        if not any_answered:
            raise RunError(f"not one question was answered; {_failed(part[0])['reason']}")
        new = [row for row in part if row["id"] not in known]
        if new:
            failed[number] = [row for row in new if row["finish"] == "error"]
            yield Slice(number, [row for row in new if row["finish"] != "error"])


def _slices(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while part := list(islice(source, SLICE_ROWS)):
        yield part


def _write_scores(
    outcomes: Sequence[Outcome],
    failed: Sequence[Row],
    score: RowExpr,
    number: int,
    shards: Shards,
) -> Counter[str]:
    kept: list[Row] = []
    verdicts: list[Verdict] = []
    undecided: Counter[str] = Counter()
    dropped = [_failed(row) for row in failed]
    for outcome in outcomes:
        if outcome.undecided:
            reasons = [v["reason"] or v["rule"] for v in outcome.verdicts if v["ok"] is None]
            undecided[reasons[0] if reasons else "unknown"] += 1
        else:
            kept.append({name: outcome.row.get(name) for name in ROW.names})
            verdicts += _with_score(outcome, score)
    taken = shards.numbers() - {METRICS_SHARD}
    if kept or dropped:
        free = number if number not in taken else max(taken) + 1
        edges = [
            {"child": row["id"], "parent": row["parent"], "role": "sampled_from"} for row in kept
        ]
        tables = {"row": kept, "edge": edges, "verdict": verdicts, "dropped": dropped}
        shards.write(free, tables)
    return undecided


def _failed(row: Row) -> dict[str, Any]:
    reason = f"not answered: {row.get('error') or 'no reason given'}"
    return {"row": row["id"], "source": row.get("source"), "reason": reason}


def _with_score(outcome: Outcome, score: RowExpr) -> list[Verdict]:
    """The verdicts, last the one of the whole expression: what the answer counts."""
    value = float(outcome.value or 0.0)
    same = [v["reason"] for v in outcome.verdicts if v["rule"] == score.text]
    last = {
        "row": outcome.row["id"],
        "rule": score.text,
        "ok": value == 1.0,
        "reason": same[0] if same else None,
        "score": value,
    }
    return [v for v in outcome.verdicts if v["rule"] != score.text] + [last]


# ---- measuring -------------------------------------------------------------------------------------------------


def lines(shards: Shards, table: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """All lines of a table that shards hold, in order."""
    for shard in shards.read():
        if table in shard.files:
            yield from read_table(shard.files[table], columns)


def _measure_all(work: Work, spec: Eval, score: RowExpr, shards: Shards) -> dict[str, Any]:
    """The figures of all answers, with those of each benchmark and category apart."""
    scores = _scores(shards, score.text)
    scored = ((row, scores[row["id"]]) for row in lines(shards, "row"))
    failed = Counter(line["reason"] for line in lines(shards, "dropped"))
    questions = questions_of(work.inputs, spec.aggregate_of)
    return {**measure_rows(questions, scored, spec.prompt), "num_failed": failed.total()}


def _scores(shards: Shards, rule: str) -> dict[str, float]:
    found = lines(shards, "verdict", ["row", "rule", "score"])
    return {line["row"]: line["score"] for line in found if line["rule"] == rule}


def metric_lines(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the table ``metric``: ``accuracy`` over all, ``NAME/accuracy`` for each benchmark."""
    flat = figures(metrics)
    return [{"step": None, "name": name, "value": float(value)} for name, value in flat.items()]
