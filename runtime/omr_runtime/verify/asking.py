"""A work order and an expression to a cascade that can be asked: prompts, pass rates, judges and workers in place."""

from __future__ import annotations

import os
from pathlib import Path

from omr_runtime.near import hashed
from omr_runtime.verify.cascade import Cascade, OpenJudge
from omr_runtime.verify.judge import DECODING, Judge, judge_name
from omr_runtime.verify.math import MathPool
from omr_runtime.verify.passrates import read_pass_rates
from omr_runtime.verify.plugin import Plugin
from omr_runtime.verify.seen import NUM_WORDS, Looks, Seen
from omr_runtime.verify.tokens import TokenCounter
from omr_runtime.work import Work, read_rows
from omrlang.types import Call, Lit, Model, ModelRef, Prompt, RowExpr
from omrlang.walk import calls

MAX_WORKERS = 16


def cascade_for(
    work: Work, expr: RowExpr, prompt: Prompt | None = None, num_workers: int | None = None
) -> Cascade:
    """``prompt`` is the format of rows that were sampled under it in this stage itself. Without ``num_workers`` there
    is one for each core."""
    asked = list(calls(expr.tree))
    rates = {
        call.stages[0]: read_pass_rates(work.rows_of(call.stages[0]).folder)
        for call in asked
        if call.fn == "pass_rate"
    }
    workers = num_workers or min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    return Cascade(
        expr,
        prompt,
        prompts=work.prompts,
        open_judge=judge_opener(work),
        open_plugin=lambda verifier: Plugin(verifier, Path(work.base), workers),
        pass_rates=rates,
        seen={call: _seen(work, call) for call in asked if call.fn == "seen_in"},
        count=TokenCounter(work),
        math=MathPool(workers),
    )


def _seen(work: Work, call: Call) -> Seen:
    """The index of a ``seen_in``."""
    named = {name: node.value for name, node in call.named if isinstance(node, Lit)}
    alike = named.get("image")
    looks = Looks(float(alike), hashed(work.state)) if alike else None
    found = Seen(int(named.get("n") or NUM_WORDS), looks)
    for name in call.stages:
        found.add(name, read_rows([work.rows_of(name)], ["id", "question", "images"]))
    return found


def judge_opener(work: Work) -> OpenJudge:
    """Judges through the engine that their model names, or the machine's default one."""

    def open_judge(model: ModelRef) -> Judge:
        from omr_runtime.engines import open_engine

        state = Path(work.state)
        if isinstance(model, Model):
            return Judge(
                judge_name(model),
                open_engine(
                    model, state=state, base=Path(work.base), max_tokens=DECODING.max_tokens
                ),
            )
        folder = Path(work.model_folders[model.stage])
        return Judge(
            judge_name(model), open_engine(folder, state=state, max_tokens=DECODING.max_tokens)
        )

    return open_judge
