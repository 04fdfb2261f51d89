"""A stage of a plan to its work order on disk and the command that does it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import assert_never

from omr_runtime.store import State
from omr_runtime.work import InputRows, Work, write_atomic
from omrlang.plan import Plan, PlanStage
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source, Spec


def row_sets(spec: Spec) -> tuple[str, ...]:
    """The stages of the ``from`` clause, in its order."""
    match spec:
        case Source():
            return ()
        case Mix():
            return tuple(part.rows for part in spec.parts)
        case Eval():
            return spec.rows
        case Sample() | Filter() | Sft() | Rl():
            return (spec.rows,)
        case _:
            assert_never(spec)


def work_order(plan: Plan, stage: PlanStage, state: State) -> Work:
    """Everything that the worker of this stage is told."""
    given = row_sets(stage.spec)
    trained = {
        s.name: str(state.model(s.fingerprint)) for s in plan.stages if s.spec.kind in ("sft", "rl")
    }
    others = tuple(name for name in stage.parents if name not in given and name not in trained)
    return Work(
        stage=stage,
        seed=plan.seed,
        base=plan.folder,
        state=str(state.folder),
        out=str(state.artifact(stage.fingerprint)),
        progress=str(state.progress(stage.fingerprint)),
        inputs=_inputs(plan, state, given),
        others=_inputs(plan, state, others),
        model_folders=trained,
        fingerprints={s.name: s.fingerprint for s in plan.stages},
        prompts=tuple(s.spec.prompt for s in plan.stages if isinstance(s.spec, Sample)),
    )


def _inputs(plan: Plan, state: State, names: tuple[str, ...]) -> tuple[InputRows, ...]:
    found = {name: plan.stage(name).fingerprint for name in names}
    return tuple(
        InputRows(name=n, fingerprint=fp, folder=str(state.artifact(fp))) for n, fp in found.items()
    )


def write_work(plan: Plan, stage: PlanStage, state: State) -> tuple[list[str], dict[str, str]]:
    """Write the order, take away what an earlier worker left as its end; the command and what is set in its environment."""
    return put_order(work_order(plan, stage, state), state.work(stage.fingerprint))


def put_order(work: Work, path: Path) -> tuple[list[str], dict[str, str]]:
    """As ``write_work``, of an order that is made already."""
    for left in (Path(work.out) / "error.json", Path(work.progress), work.stop_file):
        left.unlink(missing_ok=True)
    Path(work.out).mkdir(parents=True, exist_ok=True)
    write_atomic(path, work.model_dump_json().encode())
    return _command(work, path)


def _command(work: Work, path: Path) -> tuple[list[str], dict[str, str]]:
    if work.stage.spec.kind in ("sft", "rl"):
        from omr_runtime.train import launch

        return launch.command(work, path)
    return [sys.executable, "-m", "omr_runtime.stages", str(path)], {}
