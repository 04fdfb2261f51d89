"""Benchmarks of the standard library from a local copy in their published format, and their scorers on hand-made answers.

A case file holds rows as the set publishes them and answers to each: whether it is right, and where the rules of
OpenMMReasoner's released scorer say something else, what they say. ``pytest --update`` writes the latter anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from released_scorer import released
from verify_parts import PROMPT, ask, condition, response, table, work_order

from omr_runtime.stages import source
from omr_runtime.synthetic.shapes import draw
from omr_runtime.verify.cascade import Cascade
from omr_runtime.verify.math import MathPool
from omrlang.compiler import load
from omrlang.render import render
from omrlang.schema import Source

CASES = Path(__file__).parent / "cases" / "benchmarks"
NAMES = sorted(path.stem for path in CASES.glob("*.json"))
PIXELS = next(draw(1, 3))["images"][0]
REAL = {
    "gsm8k": ('jsonl("gsm8k/test.jsonl")', 1_319),
    "svamp": ('json("svamp/test.json")', 300),
    "mawps": ('jsonl("mawps/test.jsonl")', 384),
    "puzzle_vqa": ('jsonl("puzzlevqa/venn.json")', 100),
}
"""Sets whose real data lie beside the repository, and how many rows the source stage must read or stop."""


@pytest.fixture(scope="module")
def math() -> Iterator[MathPool]:
    pool = MathPool(1)
    yield pool
    pool.close()


def declared(name: str, place: str, folder: Path, num_rows: int) -> Source:
    """The benchmark from a place of one's own, through the compiler."""
    recipe = folder / "local.omr"
    recipe.write_text(
        "omr 1\n\nuse std.benchmarks\n\n"
        f"benchmark local = benchmarks.{name} from {place} {{ rows = {num_rows} }}\n"
    )
    found, diagnostics = load(recipe)
    assert found is not None, render(diagnostics)
    spec = next(stage.spec for stage in found.stages if stage.spec.name == "local")
    assert isinstance(spec, Source)
    return spec


def read(spec: Source, folder: Path) -> list[dict[str, Any]]:
    work = work_order(spec, folder, {})
    source.run(work)
    return table(work, "row")


def local_rows(name: str, folder: Path, raws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the benchmark makes of a Parquet file with rows as published, images as ``datasets`` stores them."""
    image = {"bytes": PIXELS, "path": None}
    rows = [{k: image if v == "IMAGE" else v for k, v in raw.items()} for raw in raws]
    pq.write_table(pa.Table.from_pylist(rows), folder / "copy.parquet")
    return read(declared(name, 'parquet("copy.parquet")', folder, len(raws)), folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_scorer_on_answers_made_by_hand(
    name: str, tmp_path: Path, math: MathPool, update: bool
) -> None:
    path = CASES / f"{name}.json"
    cases = json.loads(path.read_text())
    assert sum(len(case["answers"]) for case in cases) >= 20
    rows = local_rows(name, tmp_path, [case["raw"] for case in cases])
    wrong = []
    for case, row in zip(cases, rows, strict=True):
        truth = case["released_truth"].replace("LETTER", right_letter(row))
        given = [answer[0].replace("LETTER", right_letter(row)) for answer in case["answers"]]
        ours = verdicts(row, given, math)
        theirs = [released(truth, text, lambda a, b: math.check([(a, b)])[0].ok) for text in given]
        wrong += [
            f"{text!r} for {row['answer']!r}: {said}"
            for text, said, answer in zip(given, ours, case["answers"], strict=True)
            if said != answer[1]
        ]
        found = [
            [answer[0], answer[1], *([it] if it != answer[1] else [])]
            for answer, it in zip(case["answers"], theirs, strict=True)
        ]
        if update:
            case["answers"] = found
        assert found == case["answers"], "what the released rules say moved; --update shows it"
    assert not wrong, "\n".join(wrong)
    if update:
        path.write_text(written(cases))


WRONG_ACCEPTS = {("puzzle_vqa", "A. 20")}
"""What the released rules accept and ours refuse: the letter of one option with the text of another."""


@pytest.mark.parametrize("name", NAMES)
def test_twenty_rows_agree_with_the_released_rules(name: str) -> None:
    """Where they do not, the released rules refuse a right answer, which its judge then accepts by letter or content, since
    they know no options, no letter after H and no truth but "(A)"; or it is a known wrong accept of theirs."""
    cases = json.loads((CASES / f"{name}.json").read_text())
    answers = [answer for case in cases for answer in case["answers"]]
    assert sum(len(answer) == 2 for answer in answers) >= 20
    accepted = {(name, text) for text, ours, *theirs in answers if theirs == [True] and not ours}
    assert accepted <= WRONG_ACCEPTS
    assert {ours for _, ours, *_ in answers} == {True, False}
    assert any(text == "" for text, *_ in answers), "no answer is a branch too"


def test_every_benchmark_has_cases() -> None:
    """The four questions of a chart are one scorer and have one file."""
    recipe, _ = load(Path(__file__).parents[1] / "stdlib" / "benchmarks.omr")
    assert recipe is not None
    names = {stage.spec.name for stage in recipe.stages}
    assert names - set(NAMES) == {f"charxiv_descriptive_{n}" for n in (2, 3, 4)}


def right_letter(row: dict[str, Any]) -> str:
    options = row["options"] or []
    return "ABCDEFGHIJ"[options.index(row["answer"])] if row["answer"] in options else "-"


def verdicts(row: dict[str, Any], given: list[str], math: MathPool) -> list[bool]:
    """What ``answer_matches`` says of each final answer to one question."""
    score = condition(ask("answer_matches"), "answer_matches")
    asked = [row | {"id": str(n), "response": response(text)} for n, text in enumerate(given)]
    outcomes = Cascade(score, PROMPT, math=math).evaluate(asked)
    found = {outcome.row["id"]: bool(outcome.value) for outcome in outcomes}
    return [found[str(n)] for n in range(len(given))]


def written(cases: list[dict[str, Any]]) -> str:
    """One answer a line, so that a changed verdict is a changed line."""

    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    blocks = []
    for case in cases:
        answers = ",\n      ".join(text(answer) for answer in case["answers"])
        head = f'"raw": {text(case["raw"])},\n    "released_truth": {text(case["released_truth"])}'
        blocks.append(f'  {{\n    {head},\n    "answers": [\n      {answers}\n    ]\n  }}')
    return "[\n" + ",\n".join(blocks) + "\n]\n"


@pytest.mark.parametrize("name", REAL)
def test_real_data_are_read_as_declared(name: str, tmp_path: Path, shared_data: Path) -> None:
    place, num_rows = REAL[name]
    place = place.replace('("', f'("{shared_data}/')
    rows = read(declared(name, place, tmp_path, num_rows), tmp_path)
    assert all(row["question"] and row["answer"] for row in rows)
    assert all(row["answer"] in row["options"] and row["images"] for row in rows if row["options"])


def test_the_four_questions_of_a_chart_are_four_benchmarks(tmp_path: Path) -> None:
    raw = json.loads((CASES / "charxiv_descriptive.json").read_text())[0]["raw"]
    raw |= {"subplot_row": 2, "subplot_col": 1}
    asked = [
        local_rows(f"charxiv_descriptive{end}", tmp_path / f"q{n}", [raw])[0]
        for n, end in enumerate(("", "_2", "_3", "_4"))
        if not (tmp_path / f"q{n}").mkdir()
    ]
    assert [row["answer"] for row in asked] == ["Time (s)", "3", "A, B", "2 by 2"]
    questions = [row["question"] for row in asked]
    assert len(set(questions)) == 4
    assert all(text.startswith("In the plot at row 2 and column 1: ") for text in questions)
    assert not any("#" in text for text in questions)


def test_the_released_rules_do_what_was_seen_of_them() -> None:
    """What the reference reports from running them."""

    def never(left: str, right: str) -> bool:
        return False

    accepted = [("Because of X", "B"), ("Blue", "B"), ("Horizontal", "H"), ("(A)", "(A)")]
    accepted += [("12345678901", "1234567890")]
    refused = [("Answer: C", "C"), ("Cannot be determined (D)", "D"), ("A", "(A)")]
    assert all(released(truth, given, never) for given, truth in accepted)
    assert not any(released(truth, given, never) for given, truth in refused)
