"""Rows and one expression to verdicts: rules in SQL first, then the others, each asked only when it can still decide.

Rows go through in batches. What a worker or a judge must answer is collected over the whole batch and asked at once;
then the rows that waited are looked at again, until none waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Literal, TypeAlias

from omr_runtime.chat import Parsed, parse_response, prompt_label
from omr_runtime.errors import RunError
from omr_runtime.verify.answers import Pair, choice, clean, decide, exact
from omr_runtime.verify.interpret import UNKNOWN, ExpressionError, Row, Value, evaluate
from omr_runtime.verify.judge import Judge, Opinion, Triple, check_address, judge_name
from omr_runtime.verify.math import MathPool, MathVerdict
from omr_runtime.verify.relations import answer_in_sql
from omrlang.expressions import WHITE_SPACE
from omrlang.types import Call, Lit, ModelRef, Prompt, RowExpr, Rule
from omrlang.walk import calls, describe

OpenJudge: TypeAlias = Callable[[ModelRef], Judge]
Verdict: TypeAlias = dict[str, Any]

BATCH_ROWS = 1_024


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


@dataclass(frozen=True, slots=True)
class _Found:
    """What a verifier said."""

    value: Value
    reason: str | None = None


class _Wait(Exception):
    """A worker or a judge must be asked before this row goes on."""

    def __init__(
        self, call: Call, need: tuple[Pair, ...] | Triple, kind: Literal["math", "judge"]
    ) -> None:
        self.call, self.need, self.kind = call, need, kind


@dataclass(slots=True)
class _Case:
    """A row on its way: what was found so far, and what it waits for."""

    row: Row
    prompt: Prompt | None
    parsed: Parsed | None
    found: dict[Call, _Found] = field(default_factory=dict)
    sql: dict[int, bool] = field(default_factory=dict)
    wait: _Wait | None = None


class Cascade:
    """The expression made ready to be asked. Judges are opened on entry, so that a missing one stops the stage at once.

    ``prompt`` gives the reasoning format of rows that name none in their column ``prompt``; ``prompts`` are those that
    rows may name. ``pass_rates`` holds, by stage, the kept share by question content.
    """

    def __init__(
        self,
        expr: RowExpr,
        prompt: Prompt | None = None,
        prompts: Sequence[Prompt] = (),
        open_judge: OpenJudge | None = None,
        pass_rates: Mapping[str, Mapping[str, float]] | None = None,
        math: MathPool | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.expr = expr
        self._prompt = prompt
        self._prompts = {prompt_label(p): p for p in prompts}
        self._open_judge = open_judge
        self._pass_rates = pass_rates or {}
        self._math = math or MathPool()
        self._batch_rows = batch_rows
        self._judges: dict[str, Judge] = {}

    def __enter__(self) -> Cascade:
        models = {
            judge_name(c.model): c.model for c in calls(self.expr.tree) if c.model is not None
        }
        for model in models.values():
            check_address(model)
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
        self._math.close()
        for judge in self._judges.values():
            judge.close()
        self._judges.clear()

    def evaluate(self, rows: Iterable[Row]) -> Iterator[Outcome]:
        """An outcome for each row, in order."""
        source = iter(rows)
        while batch := list(islice(source, self._batch_rows)):
            yield from self._evaluate_batch(batch)

    def _evaluate_batch(self, rows: Sequence[Row]) -> list[Outcome]:
        cases = [self._case(row) for row in rows]
        if self.expr.type == "bool":
            answer_in_sql(
                self.expr.rules, [case.row for case in cases], [case.sql for case in cases]
            )
        outcomes: dict[int, Outcome] = {}
        while len(outcomes) < len(cases):
            waiting = []
            for place, case in enumerate(cases):
                if place not in outcomes:
                    made = self._look(case)
                    if made is None:
                        waiting.append(case)
                    else:
                        outcomes[place] = made
            self._ask_workers([case for case in waiting if case.wait and case.wait.kind == "math"])
            self._ask_judges([case for case in waiting if case.wait and case.wait.kind == "judge"])
        return [outcomes[place] for place in range(len(cases))]

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
        except _Wait as wait:
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
        value = evaluate(rule.tree, case.row, lambda call: self._ask(call, case))
        if value is None:  # a truth value that the row does not have
            return False
        if value is not UNKNOWN and not isinstance(value, bool):
            raise ExpressionError(f"`{rule.name}` is no condition")
        return value

    def _number(self, case: _Case) -> Outcome:
        value = evaluate(self.expr.tree, case.row, lambda call: self._ask(call, case))
        verdicts = [_verdict(case, describe(call), found) for call, found in case.found.items()]
        if value is UNKNOWN or value is None:
            return Outcome(case.row, None, verdicts, undecided=value is UNKNOWN)
        if not isinstance(value, bool | int | float):
            raise ExpressionError("the expression gives no number")
        return Outcome(case.row, float(value), verdicts)

    # ---- verifiers

    def _ask(self, call: Call, case: _Case) -> Value:
        """What a verifier says of the row; raises ``_Wait`` if somebody else must be asked first."""
        if call not in case.found:
            case.found[call] = self._answer(call, case)
        return case.found[call].value

    def _answer(self, call: Call, case: _Case) -> _Found:
        match call.fn:
            case "format_ok" | "format_score":
                return _format(call, case)
            case "pass_rate":
                rates = self._pass_rates.get(call.stage or "")
                if rates is None:
                    raise ExpressionError(f"the verdicts of {call.stage} are not at hand here")
                return _Found(rates.get(case.row.get("content") or ""))
            case "judge":
                return self._judge(call, case)
            case "answer_exact" | "answer_choice" | "answer_math" | "answer_matches":
                return _rules(call, case)
            case _:
                raise ExpressionError(f"`{call.fn}` is not known here")

    def _judge(self, call: Call, case: _Case) -> _Found:
        named = {name: node.value for name, node in call.named if isinstance(node, Lit)}
        sees = "response" if named.get("sees") == "response" else "final_answer"
        given, truth = case.row.get(sees), case.row.get("answer")
        if not given or not truth:
            return _missing(truth)
        question = case.row.get("question") if named.get("question", True) else None
        raise _Wait(call, (question, truth, given), "judge")

    def _ask_workers(self, cases: Sequence[_Case]) -> None:
        pairs = [pair for case in cases if case.wait for pair in case.wait.need]
        verdicts = iter(self._math.check(pairs)) if pairs else iter(())  # type: ignore[arg-type]
        for case in cases:
            assert case.wait is not None, "filtered by the caller"
            answers = list(islice(verdicts, len(case.wait.need)))
            case.found[case.wait.call] = _of_math(answers, case)
            case.wait = None

    def _ask_judges(self, cases: Sequence[_Case]) -> None:
        for name, judge in self._judges.items():
            mine = [
                c
                for c in cases
                if c.wait and c.wait.call.model and judge_name(c.wait.call.model) == name
            ]
            opinions = judge.ask([c.wait.need for c in mine if c.wait]) if mine else []  # type: ignore[misc]
            for case, opinion in zip(mine, opinions, strict=True):
                assert case.wait is not None, "filtered above"
                case.found[case.wait.call] = _of_judge(opinion)
                case.wait = None


# ---- what the rules say ----------------------------------------------------------------------------------------


def _format(call: Call, case: _Case) -> _Found:
    if case.row.get("response") is None:
        return _Found(False if call.fn == "format_ok" else 0.0, "no response")
    if case.parsed is None or case.prompt is None:
        raise ExpressionError(
            f"the format of prompt {case.row.get('prompt')!r} is not known in this recipe"
        )
    ok = case.parsed.format_ok
    reason = None if ok else f"not in the format of prompt {case.prompt.name}"
    return _Found(ok if call.fn == "format_ok" else float(ok), reason)


def _rules(call: Call, case: _Case) -> _Found:
    """A verdict on the final answer by rules; raises ``_Wait`` where math-verify has to look."""
    row = case.row
    truth, given, question = row.get("answer"), row.get("final_answer"), row.get("question") or ""
    if not truth or not given or not given.strip(WHITE_SPACE):
        return _missing(truth)
    options = row.get("options") or ()
    if call.fn in ("answer_choice", "answer_matches") and options:
        chosen = choice(options, truth, given)
        if chosen is not None or call.fn == "answer_choice":
            return _decided(bool(chosen), "choice", truth, given)
    if call.fn == "answer_choice":
        return _Found(False, "no options")
    if call.fn == "answer_exact":
        return _decided(exact(truth, given, question), "exact", truth, given)
    decision = decide(truth, given, question)
    if isinstance(decision, bool):
        return _decided(decision, "exact", truth, given)
    raise _Wait(call, decision, "math")


def _missing(truth: str | None) -> _Found:
    return _Found(False, "no true answer" if not truth else "no final answer")


def _decided(ok: bool, how: str, truth: str, given: str) -> _Found:
    return _Found(ok, how if ok else f"{_short(given)} is not {_short(truth)}")


def _short(text: str) -> str:
    text = clean(text[:200])
    return text if len(text) <= 40 else text[:39] + "…"


def _of_math(verdicts: Sequence[MathVerdict], case: _Case) -> _Found:
    """All pairs must be equal."""
    if all(verdict.ok for verdict in verdicts):
        return _Found(True, "math")
    reasons = [verdict.reason for verdict in verdicts if verdict.reason]
    if reasons:
        return _Found(False, reasons[0])
    return _decided(False, "math", case.row["answer"], case.row["final_answer"])


def _of_judge(opinion: Opinion) -> _Found:
    return _Found(UNKNOWN if opinion.ok is None else opinion.ok, opinion.reason)


# ---- verdicts --------------------------------------------------------------------------------------------------


def _verdicts_of(rule: Rule, value: Value, case: _Case) -> list[Verdict]:
    """A verdict for each predicate within the rule that was asked, and one for the rule if it is more than that."""
    asked = [call for call in calls(rule.tree) if call in case.found]
    verdicts = [_verdict(case, describe(call), case.found[call]) for call in dict.fromkeys(asked)]
    if isinstance(rule.tree, Call) and asked:
        verdicts[0]["rule"] = rule.name
        return verdicts
    return [*verdicts, _verdict(case, rule.name, _Found(value))]


def _as_number(verdict: Verdict) -> float | None:
    if verdict["score"] is not None or verdict["ok"] is None:
        score: float | None = verdict["score"]
        return score
    return float(verdict["ok"])


def _verdict(case: _Case, name: str, found: _Found) -> Verdict:
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
