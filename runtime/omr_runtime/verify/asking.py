"""A work order and an expression to a cascade that can be asked: prompts, pass rates, judges and workers in place."""

from __future__ import annotations

import os
from pathlib import Path

from omr_runtime.verify.cascade import Cascade, OpenJudge
from omr_runtime.verify.judge import DECODING, Judge, judge_name
from omr_runtime.verify.math import MathPool
from omr_runtime.verify.passrates import read_pass_rates
from omr_runtime.work import Work
from omrlang.types import Model, ModelRef, Prompt, RowExpr
from omrlang.walk import calls

MAX_WORKERS = 16


def cascade_for(work: Work, expr: RowExpr, prompt: Prompt | None = None) -> Cascade:
    """``prompt`` is the format of rows that were sampled under it in this stage itself."""
    rates = {
        call.stage: read_pass_rates(work.rows_of(call.stage).folder)
        for call in calls(expr.tree)
        if call.fn == "pass_rate" and call.stage is not None
    }
    return Cascade(
        expr,
        prompt,
        prompts=work.prompts,
        open_judge=judge_opener(work),
        pass_rates=rates,
        math=MathPool(min(MAX_WORKERS, len(os.sched_getaffinity(0)))),
    )


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
