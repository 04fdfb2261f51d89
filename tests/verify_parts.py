"""Rows, expressions and work orders for tests of verification."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from omr_runtime.chat import prompt_label
from omr_runtime.engines.protocol import Completion, Done, Request
from omr_runtime.verify.judge import Judge
from omr_runtime.work import InputRows, Shards, Work
from omrlang.expressions import row_expression
from omrlang.functions import FUNCTIONS
from omrlang.plan import PlanStage
from omrlang.schema import Spec
from omrlang.types import Binary, Call, ExprNode, Fresh, Lit, Model, Prompt, RowExpr

PROMPT = Prompt(name="short")
REFEREE = Model(
    name="referee",
    source=Fresh(family="qwen2", layers=1, hidden=32, heads=2),
)


def ask(fn: str) -> Call:
    assert fn in FUNCTIONS
    return Call(fn=fn, model=REFEREE if fn == "judge" else None)


def both(left: ExprNode, right: ExprNode) -> Binary:
    return Binary(op="and", left=left, right=right)


def either(left: ExprNode, right: ExprNode) -> Binary:
    return Binary(op="or", left=left, right=right)


def condition(tree: ExprNode, *texts: str) -> RowExpr:
    return row_expression(tree, " and ".join(texts), "bool", texts)


def reward() -> RowExpr:
    """``0.9 * (answer_matches or judge(referee)) + 0.1 * format_score``"""
    right = Binary(op="*", left=Lit(value=0.1), right=ask("format_score"))
    left = Binary(op="*", left=Lit(value=0.9), right=either(ask("answer_matches"), ask("judge")))
    tree = Binary(op="+", left=left, right=right)
    return row_expression(tree, "0.9 * (answer_matches or judge(referee)) + …", "number", [])


def response(answer: str, thinking: str = "so") -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def row(name: str, given: str, answer: str | None = "4", **more: Any) -> dict[str, Any]:
    """A sampled row whose response gives that final answer."""
    made = {
        "id": name,
        "parent": f"q-{name.split('-')[0]}",
        "content": f"c-{name.split('-')[0]}",
        "source": "math",
        "question": "How many?",
        "answer": answer,
        "prompt": prompt_label(PROMPT),
        "response": response(given),
        "num_tokens": 10,
    }
    return made | more


class Program:
    """An engine that is a program: says what ``answers`` says about the given answer, and counts what it was asked."""

    name, version = "program", "1"

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.closed = False

    def generate(self, requests: Sequence[Request], done: Done) -> None:
        for request in requests:
            given = request.row["question"].rpartition("Given answer:\n")[2]
            self.asked.append(given)
            text = self.answers.get(given)
            if text is None:
                done(Completion(request.key, 0, "", 0, "error", "no route to host"))
            else:
                done(Completion(request.key, 0, text, 1, "stop"))

    def close(self) -> None:
        self.closed = True


def judge(answers: dict[str, str]) -> tuple[Judge, Program]:
    engine = Program(answers)
    return Judge("referee", engine), engine


def work_order(spec: Spec, folder: Path, inputs: dict[str, list[dict[str, Any]]]) -> Work:
    """A work order whose inputs lie in shards of a few rows each."""
    given = []
    for name, rows in inputs.items():
        place = folder / "store" / name
        for number in range(0, len(rows), 7):
            Shards(place).write(number // 7, {"row": rows[number : number + 7]})
        place.mkdir(parents=True, exist_ok=True)
        given.append(InputRows(name=name, fingerprint=name, folder=str(place)))
    parents = tuple(inputs)
    stage = PlanStage(
        address=f"{spec.kind}.{spec.name}",
        name=spec.name,
        spec=spec,
        fingerprint=spec.name,
        parents=parents,
        action="new",
    )
    return Work(
        stage=stage,
        seed=7,
        base=str(folder),
        state=str(folder),
        out=str(folder / "store" / spec.name),
        progress=str(folder / "progress.jsonl"),
        inputs=tuple(given),
        prompts=(PROMPT,),
    )


def table(work: Work, name: str) -> list[dict[str, Any]]:
    """All lines of a table of the work's shards."""
    found: list[dict[str, Any]] = []
    for shard in Shards(work.out).read():
        if name in shard.files:
            found += pq.read_table(shard.files[name]).to_pylist()
    return found
