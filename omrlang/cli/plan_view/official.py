"""A plan's evals to the commands that have official programs score the same benchmarks, to be typed in their environments."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from omrlang.plan import Plan, PlanStage
from omrlang.published.tasks import TASKS, Program
from omrlang.schema import Eval
from omrlang.types import FolderModel, HfModel, Model

WEIGHTS: dict[Program, str] = {"lmms_eval": "model", "lm_eval": "pretrained"}
"""What each program calls the weights among the arguments of its vLLM model."""


def official(plan: Plan, state: Path) -> str:
    """Shell lines; comments say what no program can score, and why."""
    evals = [stage for stage in plan.stages if isinstance(stage.spec, Eval)]
    lines = [line for stage in evals for line in _of_eval(plan, stage, state)]
    files = " ".join(f"--with {_results(name)}/…/results.json" for name in _asked(lines))
    read = [f"# what they write, beside what was scored here: omr show tournament {files}"]
    return "\n".join([*lines, *(read if files else [])] or ["# no eval in this plan"]) + "\n"


def _asked(lines: list[str]) -> list[str]:
    return [line.split()[2].rstrip(":") for line in lines if line.endswith(":")]


def _results(name: str) -> str:
    return f"official/{name}"


def _of_eval(plan: Plan, stage: PlanStage, state: Path) -> Iterator[str]:
    spec = stage.spec
    assert isinstance(spec, Eval), "only evals are asked for"
    weights, revision = _weights(plan, spec, state)
    names = [name.rpartition(".")[2] for name in spec.rows]
    known = {program: [t[n] for n in names if n in t] for program, t in TASKS.items()}
    if weights is None:
        yield f"# eval {stage.name}: no official program can load its model"
        return
    if not any(known.values()):
        yield f"# eval {stage.name}: no official program has a task for {', '.join(names)}"
        return
    yield f"# eval {stage.name}:"
    for program, tasks in known.items():
        if tasks:
            yield _command(program, stage.name, spec, tasks, weights, revision)


def _command(
    program: Program, name: str, spec: Eval, tasks: list[str], weights: str, revision: str | None
) -> str:
    size = spec.hardware.count if spec.hardware is not None and spec.hardware.gpu else None
    arguments = {WEIGHTS[program]: weights, "revision": revision, "data_parallel_size": size}
    given = ",".join(f"{key}={value}" for key, value in arguments.items() if value is not None)
    asked = f"temperature={spec.temperature:g},top_p={spec.top_p:g}"
    limit = "max_new_tokens" if program == "lmms_eval" else "max_gen_toks"
    words = [program, "--model", "vllm", "--model_args", given, "--tasks", ",".join(tasks)]
    words += ["--gen_kwargs", f"{asked},{limit}={spec.max_tokens}", "--log_samples"]
    words += ["--output_path", _results(name)]
    if program == "lm_eval":
        words += ["--apply_chat_template"]
        words += ["--system_instruction", spec.prompt.system] if spec.prompt.system else []
    return shlex.join(words)


def _weights(plan: Plan, spec: Eval, state: Path) -> tuple[str | None, str | None]:
    """Where a program finds the weights, and their revision on the hub; None for a model that only runs here."""
    model = spec.model
    if not isinstance(model, Model):
        return str(state / "models" / plan.stage(model.stage).fingerprint), None
    match model.source:
        case HfModel(id=name, revision=revision):
            return name, revision
        case FolderModel(path=path):
            return path, None
        case _:
            return None, None
