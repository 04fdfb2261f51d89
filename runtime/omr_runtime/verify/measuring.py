"""Scored answers of several row sets to figures: all of them, each row set and each category apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from omr_runtime.chat import parse_response
from omr_runtime.verify.accuracy import Answer, measure
from omr_runtime.verify.answers import chosen_option
from omr_runtime.verify.economy import manner
from omr_runtime.verify.interpret import Row
from omr_runtime.work import InputRows, read_rows
from omrlang.types import Aggregate, Chains, Prompt

MOST_CATEGORIES = 20
"""A mapped column `extra.NAME` with no more values than this, and at least two, is a category of its questions."""
LONGEST_CATEGORY = 60


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a benchmark: ``problem`` is what it is a variant of, its own id if of nothing; ``categories`` are
    its short values of ``extra.NAME``, ``step`` that of ``extra.step``."""

    name: str
    aggregate: Aggregate
    problem: str
    categories: dict[str, str]
    step: str | None = None


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
        for row in read_rows([entry], columns=["id", "source", "variant", "extra"]):
            name = entry.name if len(sets) > 1 else row["source"] or entry.name
            variant = row["variant"]
            problem = row["id"] if variant is None else f"{row['source']}: {variant}"
            categories = _categories(row["extra"])
            question = Question(name, aggregate, problem, categories, categories.get("step"))
            found.setdefault(row["id"], []).append(question)
    return found


def _categories(extra: str | None) -> dict[str, str]:
    values = {name: str(value) for name, value in json.loads(extra or "{}").items()}
    return {name: value for name, value in values.items() if len(value) <= LONGEST_CATEGORY}


def measure_rows(
    questions: Questions, scored: Iterable[tuple[Row, float]], prompt: Prompt
) -> dict[str, Any]:
    """The figures of all answers, with those of each row set under ``by_source`` and of categories under ``by_category``.

    A question that stands in several row sets counts once among all, as the first of them says.
    """
    by_name: dict[str, Answers] = {}
    by_extra: dict[str, dict[str, Answers]] = {}
    everything: Answers = {}
    for row, score in scored:
        asked = questions[row["parent"]]
        answer = _answer(row, prompt, score, asked[0])
        everything.setdefault(asked[0].aggregate, []).append(answer)
        for name, value in asked[0].categories.items():
            found = by_extra.setdefault(name, {}).setdefault(value, {})
            found.setdefault(_in_categories(asked[0].aggregate), []).append(answer)
        for question in asked:
            found = by_name.setdefault(question.name, {})
            found.setdefault(question.aggregate, []).append(answer)
    by_source = {name: measure(answers) for name, answers in by_name.items()}
    by_category = {
        name: {value: measure(answers) for value, answers in sorted(values.items())}
        for name, values in by_extra.items()
        if 2 <= len(values) <= MOST_CATEGORIES
    }
    return {**measure(everything), "by_source": by_source, "by_category": by_category}


def _in_categories(aggregate: Aggregate) -> Aggregate:
    """A category cuts chains apart: its rows count one by one."""
    return "mean" if isinstance(aggregate, Chains) else aggregate


def _answer(row: Row, prompt: Prompt, score: float, asked: Question) -> Answer:
    parsed = parse_response(row["response"] or "", prompt)
    said, options = parsed.final_answer, row["options"] or ()
    chosen = chosen_option(options, said) if said else None
    return Answer(
        question=row["parent"],
        score=score,
        problem=asked.problem,
        step=asked.step,
        manner=manner(
            row["response"] or "", row["num_tokens"] or 0, parsed.format_ok, row.get("finish")
        ),
        said=said if chosen is None else options[chosen],
    )


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """``accuracy`` over all, ``NAME/accuracy`` for each row set, ``extra.NAME = VALUE/accuracy`` for each category."""
    flat = {name: float(v) for name, v in metrics.items() if not isinstance(v, Mapping)}
    parts = dict(metrics["by_source"])
    for name, values in metrics["by_category"].items():
        parts |= {f"extra.{name} = {value}": found for value, found in values.items()}
    for part, values in parts.items():
        flat |= {f"{part}/{name}": float(value) for name, value in values.items()}
    return flat
