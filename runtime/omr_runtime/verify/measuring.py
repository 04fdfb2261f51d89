"""Scored answers of several row sets to figures: all of them, and each row set apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from omr_runtime.chat import parse_response
from omr_runtime.verify.accuracy import Answer, measure
from omr_runtime.verify.answers import chosen_option
from omr_runtime.verify.interpret import Row
from omr_runtime.work import InputRows, read_rows
from omrlang.types import Aggregate, Prompt


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a benchmark: ``problem`` is what it is a variant of, its own id if of nothing."""

    name: str
    aggregate: Aggregate
    problem: str


Questions: TypeAlias = dict[str, list[Question]]
Answers: TypeAlias = dict[Aggregate, list[Answer]]


def questions_of(
    entries: Iterable[InputRows], aggregate_of: Callable[[str], Aggregate]
) -> Questions:
    """By id: the row sets that hold a question; where there is one row set, the column ``source``."""
    found: Questions = {}
    sets = tuple(entries)
    for entry in sets:
        aggregate = aggregate_of(entry.name)
        for row in read_rows([entry], columns=["id", "source", "variant"]):
            name = entry.name if len(sets) > 1 else row["source"] or entry.name
            variant = row["variant"]
            problem = row["id"] if variant is None else f"{row['source']}: {variant}"
            found.setdefault(row["id"], []).append(Question(name, aggregate, problem))
    return found


def measure_rows(
    questions: Questions, scored: Iterable[tuple[Row, float]], prompt: Prompt
) -> dict[str, Any]:
    """The figures of all answers, with those of each row set under ``by_source``.

    A question that stands in several row sets counts once among all, as the first of them says.
    """
    by_name: dict[str, Answers] = {}
    everything: Answers = {}
    for row, score in scored:
        asked = questions[row["parent"]]
        answer = _answer(row, prompt, score, asked[0].problem)
        everything.setdefault(asked[0].aggregate, []).append(answer)
        for question in asked:
            found = by_name.setdefault(question.name, {})
            found.setdefault(question.aggregate, []).append(answer)
    by_source = {name: measure(answers) for name, answers in by_name.items()}
    return {**measure(everything), "by_source": by_source}


def _answer(row: Row, prompt: Prompt, score: float, problem: str) -> Answer:
    parsed = parse_response(row["response"] or "", prompt)
    said, options = parsed.final_answer, row["options"] or ()
    chosen = chosen_option(options, said) if said else None
    return Answer(
        question=row["parent"],
        score=score,
        num_tokens=row["num_tokens"] or 0,
        format_ok=parsed.format_ok,
        problem=problem,
        said=said if chosen is None else options[chosen],
    )


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """``accuracy`` over all, ``NAME/accuracy`` for each row set, and so on."""
    flat = {name: float(value) for name, value in metrics.items() if name != "by_source"}
    for source, values in metrics["by_source"].items():
        flat |= {f"{source}/{name}": float(value) for name, value in values.items()}
    return flat
