"""A row's final answer and true answer to what the rules say of them; what rules cannot decide waits for somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from omr_runtime.chat import Parsed
from omr_runtime.verify.answers import Pair, choice, clean, decide, exact
from omr_runtime.verify.interpret import UNKNOWN, ExpressionError, Row, Value
from omr_runtime.verify.judge import Opinion, Triple
from omr_runtime.verify.math import MathVerdict
from omr_runtime.verify.workers import Reply
from omrlang.expressions import WHITE_SPACE
from omrlang.types import Call, Lit, Prompt

Need: TypeAlias = tuple[Pair, ...] | Triple | Row
"""What is asked: pairs of answers of math-verify, a triple of a judge, the whole row of code."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a verifier said."""

    value: Value
    reason: str | None = None


class Wait(Exception):
    """A worker, a judge or code must be asked before this row goes on."""

    def __init__(self, call: Call, kind: Literal["math", "judge", "code"], need: Any) -> None:
        self.call, self.kind, self.need = call, kind, need


def format_found(call: Call, row: Row, parsed: Parsed | None, prompt: Prompt | None) -> Found:
    """``format_ok`` and ``format_score``."""
    if row.get("response") is None:
        return Found(False if call.fn == "format_ok" else 0.0, "no response")
    if parsed is None or prompt is None:
        raise ExpressionError(
            f"the format of prompt {row.get('prompt')!r} is not known in this recipe"
        )
    ok = parsed.format_ok
    reason = None if ok else f"not in the format of prompt {prompt.name}"
    return Found(ok if call.fn == "format_ok" else float(ok), reason)


def answer_found(call: Call, row: Row) -> Found:
    """``answer_…``: a verdict on the final answer by rules; raises ``Wait`` where math-verify has to look."""
    truth, given, question = row.get("answer"), row.get("final_answer"), row.get("question") or ""
    if not truth or not given or not given.strip(WHITE_SPACE):
        return _missing(truth)
    options = row.get("options") or ()
    if call.fn in ("answer_choice", "answer_matches") and options:
        chosen = choice(options, truth, given)
        if chosen is not None or call.fn == "answer_choice":
            return _decided(bool(chosen), "choice", truth, given)
    if call.fn == "answer_choice":
        return Found(False, "no options")
    if call.fn == "answer_exact":
        return _decided(exact(truth, given, question), "exact", truth, given)
    decision = decide(truth, given, question)
    if isinstance(decision, bool):
        return _decided(decision, "exact", truth, given)
    raise Wait(call, "math", decision)


def judge_found(call: Call, row: Row) -> Found:
    """What needs no judge; raises ``Wait`` where there are two answers to compare."""
    named = {name: node.value for name, node in call.named if isinstance(node, Lit)}
    sees = "response" if named.get("sees") == "response" else "final_answer"
    given, truth = row.get(sees), row.get("answer")
    if not given or not truth:
        return _missing(truth)
    question = row.get("question") if named.get("question", True) else None
    raise Wait(call, "judge", (question, truth, given))


def _missing(truth: str | None) -> Found:
    return Found(False, "no true answer" if not truth else "no final answer")


def _decided(ok: bool, how: str, truth: str, given: str) -> Found:
    return Found(ok, how if ok else f"{_short(given)} is not {_short(truth)}")


def _short(text: str) -> str:
    text = clean(text[:200])
    return text if len(text) <= 40 else text[:39] + "…"


def of_math(verdicts: Sequence[MathVerdict], row: Row) -> Found:
    """All pairs must be equal."""
    if all(verdict.ok for verdict in verdicts):
        return Found(True, "math")
    reasons = [verdict.reason for verdict in verdicts if verdict.reason]
    if reasons:
        return Found(False, reasons[0])
    return _decided(False, "math", row["answer"], row["final_answer"])


def of_judge(opinion: Opinion) -> Found:
    return Found(UNKNOWN if opinion.ok is None else opinion.ok, opinion.reason)


def of_code(reply: Reply) -> Found:
    return Found(UNKNOWN if reply.value is None else reply.value, reply.reason)
