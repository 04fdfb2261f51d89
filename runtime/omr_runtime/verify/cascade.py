"""Rows and one expression to verdicts: rules in SQL first, then the others, each asked only when it can still decide.

Rows go through in batches. What a worker or a judge must answer is collected over the whole batch and asked at once;
then the rows that waited are looked at again, until none waits. Meanwhile the rules go on with the next batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from omr_runtime.chat import Parsed, parse_response, prompt_label
from omr_runtime.errors import RunError
from omr_runtime.verify.interpret import (
    UNKNOWN,
    Count,
    ExpressionError,
    Row,
    Value,
    evaluate,
    no_tokens,
)
from omr_runtime.verify.judge import Judge, check_address, judge_name
from omr_runtime.verify.math import MathPool
from omr_runtime.verify.plugin import Plugin
from omr_runtime.verify.relations import answer_in_sql
from omr_runtime.verify.rules import (
    Found,
    Wait,
    answer_found,
    format_found,
    judge_found,
    of_code,
    of_judge,
    of_math,
)
from omr_runtime.verify.seen import Seen
from omr_runtime.work import ROW
from omrlang.types import Call, ModelRef, Prompt, RowExpr, Rule, Verifier
from omrlang.walk import calls, describe

OpenJudge: TypeAlias = Callable[[ModelRef], Judge]
OpenPlugin: TypeAlias = Callable[[Verifier], Plugin]
Verdict: TypeAlias = dict[str, Any]

Name = TypeVar("Name")

BATCH_ROWS = 1_024
ROWS_MEANWHILE = 32
"""As few rows go together where they come one after another: a query of DuckDB for each would cost more than it gives."""
JUDGED_MEANWHILE = 4
"""Rows for each request that a judge's servers take at once: a batch ends with its slowest answer, and the next waits."""
BATCHES_AHEAD = 8
"""So many are held in memory while math-verify is busy with the first of them, as when it imports SymPy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row. ``value`` is None where it is unknown (then ``undecided``) or a number is missing.

    ``verdicts`` are lines of the table ``verdict``, one for each predicate that was asked; ``parts`` the same by name.
    ``reason`` is the text of the first rule that is false.
    """

    row: Row
    value: bool | float | None
    verdicts: list[Verdict]
    reason: str | None = None
    undecided: bool = False

    @property
    def parts(self) -> dict[str, float | None]:
        """Each predicate's value as a number, None where it is unknown."""
        return {verdict["rule"]: _as_number(verdict) for verdict in self.verdicts}


@dataclass(slots=True)
class _Case:
    """A row on its way: what was found so far, and what it waits for."""

    row: Row
    prompt: Prompt | None
    parsed: Parsed | None
    found: dict[Call, Found] = field(default_factory=dict)
    sql: dict[int, bool] = field(default_factory=dict)
    wait: Wait | None = None

    def take(self, found: Found) -> None:
        """What the row waited for."""
        assert self.wait is not None, "only a row that waits is answered"
        self.found[self.wait.call], self.wait = found, None


@dataclass(slots=True)
class _Batch:
    """Rows that go through together, and what came out so far, by place. ``math`` is done when math-verify has answered."""

    cases: list[_Case]
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    math: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self.math is not None and not self.math.done()

    def waiting(self, kind: str) -> Iterator[_Case]:
        """Cases that wait for an answer of that kind."""
        return (case for case in self.cases if case.wait is not None and case.wait.kind == kind)


class Cascade:
    """The expression made ready to be asked. Judges and code are opened on entry, so that a missing one stops the stage
    at once.

    ``prompt`` gives the reasoning format of rows that name none in their column ``prompt``; ``prompts`` are those that
    rows may name. ``pass_rates`` holds, by stage, the kept share by question content; ``seen`` what the row sets of a
    ``seen_in`` hold; ``count`` counts tokens.
    """

    def __init__(
        self,
        expr: RowExpr,
        prompt: Prompt | None = None,
        prompts: Sequence[Prompt] = (),
        open_judge: OpenJudge | None = None,
        open_plugin: OpenPlugin | None = None,
        pass_rates: Mapping[str, Mapping[str, float]] | None = None,
        seen: Mapping[Call, Seen] | None = None,
        count: Count = no_tokens,
        math: MathPool | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.expr = expr
        self._prompt = prompt
        self._prompts = {prompt_label(p): p for p in prompts}
        self._open_judge = open_judge
        self._open_plugin = open_plugin
        self._pass_rates = pass_rates or {}
        self._seen = seen or {}
        self._count = count
        self._math = math or MathPool()
        self.batch_rows = batch_rows
        self._judges: dict[str, Judge] = {}
        self._plugins: dict[Verifier, Plugin] = {}
        self._thread = ThreadPoolExecutor(1, "math")

    def __enter__(self) -> Cascade:
        asked = list(calls(self.expr.tree))
        models = {judge_name(c.model): c.model for c in asked if c.model and c.fn == "judge"}
        for model in models.values():
            check_address(model)
        for verifier in dict.fromkeys(call.verifier for call in asked if call.verifier):
            if self._open_plugin is None:
                raise RunError(f"verifier {verifier.name} cannot be asked here")
            self._plugins[verifier] = self._open_plugin(verifier)
        if any(call.fn in ("answer_math", "answer_matches") for call in asked):
            self._math.warm()
        for name, model in models.items():
            if self._open_judge is None:
                raise RunError(f"judge {name} cannot be asked here")
            self._judges[name] = self._open_judge(model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._math.close()
        for judge in self._judges.values():
            judge.close()
        for plugin in self._plugins.values():
            plugin.close()
        self._judges.clear()
        self._plugins.clear()
        self._thread = ThreadPoolExecutor(1, "math")

    @property
    def at_least(self) -> int | None:
        """How many rows are worth a batch while more are on their way; None where all should be there first, because a judge
        is served in this process, where it would get in the way of whatever makes them."""
        seats = [judge.concurrency for judge in self._judges.values()]
        if not all(seats):
            return None
        return max([ROWS_MEANWHILE, *(JUDGED_MEANWHILE * seat for seat in seats if seat)])

    def evaluate(self, rows: Iterable[Row]) -> Iterator[Outcome]:
        """An outcome for each row, in order."""
        source = iter(rows)
        batches = iter(lambda: list(islice(source, self.batch_rows)), [])
        for _, outcomes in self.evaluate_batches((None, batch) for batch in batches):
            yield from outcomes

    def evaluate_batches(
        self, batches: Iterable[tuple[Name, Sequence[Row]]]
    ) -> Iterator[tuple[Name, list[Outcome]]]:
        """The outcomes of each named batch, in order. While math-verify is busy with one, the rules go on with the next."""
        ahead: deque[tuple[Name, _Batch]] = deque()
        for name, rows in batches:
            ahead.append((name, self._begin(rows)))
            while ahead and (len(ahead) > BATCHES_AHEAD or not ahead[0][1].is_busy):
                done, batch = ahead.popleft()
                yield done, self._finish(batch)
        for done, batch in ahead:
            yield done, self._finish(batch)

    def _begin(self, rows: Sequence[Row]) -> _Batch:
        """What rules can say; what is left for math-verify is on its way to it."""
        batch = _Batch([self._case(row) for row in rows])
        if self.expr.type == "bool":
            answer_in_sql(
                self.expr.rules,
                [case.row for case in batch.cases],
                [case.sql for case in batch.cases],
            )
        self._look_at(batch)
        if any(True for _ in batch.waiting("math")):
            batch.math = self._thread.submit(self._ask_math, list(batch.waiting("math")))
        return batch

    def _finish(self, batch: _Batch) -> list[Outcome]:
        if batch.math is not None:
            batch.math.result()
            self._look_at(batch)
        while len(batch.outcomes) < len(batch.cases):
            for kind, ask in self._asking:
                ask(list(batch.waiting(kind)))
            self._look_at(batch)
        return [batch.outcomes[place] for place in range(len(batch.cases))]

    def _look_at(self, batch: _Batch) -> None:
        for place, case in enumerate(batch.cases):
            if place not in batch.outcomes:
                made = self._look(case)
                if made is not None:
                    batch.outcomes[place] = made

    def _case(self, row: Row) -> _Case:
        """The row with its response read by the format of its prompt."""
        label = row.get("prompt")
        prompt = self._prompts.get(label, self._prompt) if label else self._prompt
        response = row.get("response")
        if prompt is None or response is None:
            return _Case(row, prompt, None)
        parsed = parse_response(response, prompt)
        read = {"thinking": parsed.thinking, "final_answer": parsed.final_answer}
        return _Case({**row, **read}, prompt, parsed)

    # ---- one row

    def _look(self, case: _Case) -> Outcome | None:
        """The outcome, or None if the row has to wait (``case.wait``)."""
        try:
            return self._conjunction(case) if self.expr.type == "bool" else self._number(case)
        except Wait as wait:
            case.wait = wait
            return None
        except ExpressionError as error:
            raise RunError(f"row {case.row.get('id')}: `{self.expr.text}`: {error}") from error

    def _conjunction(self, case: _Case) -> Outcome:
        """Rules in order up to the first that is false; an unknown one does not end it."""
        verdicts: list[Verdict] = []
        unknown = False
        for place, rule in enumerate(self.expr.rules):
            value = case.sql[place] if place in case.sql else self._value(rule, case)
            verdicts += _verdicts_of(rule, value, case)
            if value is False:
                return Outcome(case.row, False, verdicts, rule.name)
            unknown = unknown or value is UNKNOWN
        return Outcome(case.row, None if unknown else True, verdicts, undecided=unknown)

    def _value(self, rule: Rule, case: _Case) -> Value:
        value = evaluate(rule.tree, case.row, lambda call: self._ask(call, case), self._count)
        if value is None:  # a truth value that the row does not have
            return False
        if value is not UNKNOWN and not isinstance(value, bool):
            raise ExpressionError(f"`{rule.name}` is no condition")
        return value

    def _number(self, case: _Case) -> Outcome:
        value = evaluate(self.expr.tree, case.row, lambda call: self._ask(call, case), self._count)
        verdicts = [_verdict(case, describe(call), found) for call, found in case.found.items()]
        if value is UNKNOWN or value is None:
            return Outcome(case.row, None, verdicts, undecided=value is UNKNOWN)
        if not isinstance(value, bool | int | float):
            raise ExpressionError("the expression gives no number")
        return Outcome(case.row, float(value), verdicts)

    # ---- verifiers

    def _ask(self, call: Call, case: _Case) -> Value:
        """What a verifier says of the row; raises ``Wait`` if somebody else must be asked first."""
        if call not in case.found:
            case.found[call] = self._answer(call, case)
        return case.found[call].value

    def _answer(self, call: Call, case: _Case) -> Found:
        if call.verifier is not None:
            raise Wait(call, "code", {name: case.row.get(name) for name in ROW.names})
        match call.fn:
            case "format_ok" | "format_score":
                return format_found(call, case.row, case.parsed, case.prompt)
            case "pass_rate":
                return Found(self._rates(call).get(case.row.get("content") or ""))
            case "seen_in":
                if call not in self._seen:
                    raise ExpressionError("the rows to look in are not at hand here")
                shared = self._seen[call].look(case.row)
                return Found(shared is not None, shared)
            case "judge":
                return judge_found(call, case.row)
            case "answer_exact" | "answer_choice" | "answer_math" | "answer_matches":
                return answer_found(call, case.row)
            case _:
                raise ExpressionError(f"`{call.fn}` is not known here")

    def _rates(self, call: Call) -> Mapping[str, float]:
        rates = self._pass_rates.get(call.stages[0])
        if rates is None:
            raise ExpressionError(f"the verdicts of {call.stages[0]} are not at hand here")
        return rates

    @property
    def _asking(self) -> tuple[tuple[str, Callable[[Sequence[_Case]], None]], ...]:
        """Who answers what waits, cheapest first."""
        return ("math", self._ask_math), ("code", self._ask_code), ("judge", self._ask_judges)

    def _ask_code(self, cases: Sequence[_Case]) -> None:
        for verifier, plugin in self._plugins.items():
            mine = [case for case in cases if case.wait and case.wait.call.verifier == verifier]
            replies = plugin.ask([case.wait.need for case in mine if case.wait]) if mine else []
            for case, reply in zip(mine, replies, strict=True):
                case.take(of_code(reply))

    def _ask_math(self, cases: Sequence[_Case]) -> None:
        pairs = [pair for case in cases if case.wait for pair in case.wait.need]
        verdicts = iter(self._math.check(pairs)) if pairs else iter(())
        for case in cases:
            assert case.wait is not None, "filtered by the caller"
            case.take(of_math(list(islice(verdicts, len(case.wait.need))), case.row))

    def _ask_judges(self, cases: Sequence[_Case]) -> None:
        for name, judge in self._judges.items():
            mine = [
                c
                for c in cases
                if c.wait and c.wait.call.model and judge_name(c.wait.call.model) == name
            ]
            opinions = judge.ask([c.wait.need for c in mine if c.wait]) if mine else []
            for case, opinion in zip(mine, opinions, strict=True):
                case.take(of_judge(opinion))


# ---- verdicts --------------------------------------------------------------------------------------------------


def _verdicts_of(rule: Rule, value: Value, case: _Case) -> list[Verdict]:
    """A verdict for each predicate within the rule that was asked, and one for the rule if it is more than that."""
    asked = [call for call in calls(rule.tree) if call in case.found]
    verdicts = [_verdict(case, describe(call), case.found[call]) for call in dict.fromkeys(asked)]
    if isinstance(rule.tree, Call) and asked:
        verdicts[0]["rule"] = rule.name
        return verdicts
    reason = verdicts[0]["reason"] if len(verdicts) == 1 and value is False else None
    return [*verdicts, _verdict(case, rule.name, Found(value, reason))]


def _as_number(verdict: Verdict) -> float | None:
    if verdict["score"] is not None or verdict["ok"] is None:
        score: float | None = verdict["score"]
        return score
    return float(verdict["ok"])


def _verdict(case: _Case, name: str, found: Found) -> Verdict:
    """``score`` is set where the value is a number and not a plain yes or no."""
    value = found.value
    unknown = value is UNKNOWN or value is None
    return {
        "row": case.row.get("id"),
        "rule": name,
        "ok": None if unknown else bool(value),
        "reason": found.reason,
        "score": None if unknown or isinstance(value, bool) else float(value),
    }
