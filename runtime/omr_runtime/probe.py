"""A planned stage to what a small slice of it measures: the stage's own worker, in a folder that is thrown away."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omr_runtime import lineage, supervise
from omr_runtime.errors import RunError
from omr_runtime.lock import Lock
from omr_runtime.order import put_order, work_order
from omr_runtime.store import State, read_index, write_index
from omr_runtime.work import InputRows, Shards, Work, read_rows, read_table
from omrlang.plan import Plan, PlanStage
from omrlang.schema import Eval, Rl, Sample
from omrlang.schema.sft import Training
from omrlang.types import Model, OpenAI

STEPS = 4
"""Optimiser steps of a first slice."""

SAMPLES = 256
"""Responses of a first slice: four batches of the engine in process."""

ENOUGH_S = 20.0
"""A slice that was over sooner is taken anew and larger: what else a machine does in a moment would weigh too much, and
an ``rl`` changes most in its first steps, as fewer and fewer groups have a spread of rewards to learn from."""

PART = 0.25
"""But no larger than this part of the stage, unless all of it would take no longer than ``SHORT_S``."""

SHORT_S = 5.0

SLICES = 3
"""At most so many."""

GROWTH = 32.0
"""And each at most so many times the one before: the first of a quick stage measures little but its start."""

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """``tokens`` and ``seconds`` of ``units`` (samples; rows or steps of a training); ``start_seconds`` is all else that the
    process took; ``peak_bytes`` as of a run."""

    units: float
    tokens: float
    seconds: float
    start_seconds: float
    peak_bytes: float


def probe(plan: Plan, stage: PlanStage, state: State, lock: Lock) -> Measured:
    """Run slices, each larger than the last, until one takes long enough; what that one measured. RunError where the
    stage fails, as it would in a run."""
    size, whole = _sizes(plan, stage, state)
    found = [_measure(plan, stage, size, state, lock)]
    while len(found) < SLICES and (larger := _larger(size, whole, found[-1].seconds)) > size:
        size = larger
        found.append(_measure(plan, stage, size, state, lock))
    return replace(found[-1], start_seconds=min(one.start_seconds for one in found))


def keep(stage: PlanStage, found: Measured, like: str, shape: str, state: State) -> None:
    """The calibration row: into the lineage, then into the index that plans read."""
    row = {"name": stage.name, "like": like, "shape": shape, **asdict(found)}
    with lineage.write(state.lineage, "") as writer:
        writer.add_probe(stage.fingerprint, row)
    index = read_index(state)
    index["probes"][stage.fingerprint] = row
    write_index(state, index)


def _larger(size: int, whole: int, seconds: float) -> int:
    """The next slice after one of ``size`` steps or responses that took so long; ``size`` where that was enough.

    >>> _larger(4, 60, seconds=8.0), _larger(4, 1000, seconds=30.0), _larger(256, 6_000, seconds=0.01)
    (13, 4, 6000)
    """
    is_short = whole * seconds / size <= SHORT_S
    most = whole if is_short else max(size, int(whole * PART))
    wanted = 1.25 * ENOUGH_S / max(seconds, 1e-3)
    return min(most, math.ceil(size * min(GROWTH, wanted))) if seconds < ENOUGH_S else size


def _share(state: State, scratch: State, stage: PlanStage) -> None:
    """Pictures, and models that were made or trained before, are read where they lie: the stage will not make them again
    either. Everything else is the probe's own."""
    (state.folder / "store" / "images").mkdir(parents=True, exist_ok=True)
    (scratch.folder / "store").mkdir(parents=True)
    (scratch.folder / "store" / "images").symlink_to(state.folder / "store" / "images")
    (scratch.folder / "models").mkdir()
    for config in state.folder.glob("models/*/config.json"):
        made = config.parent
        if made.name != stage.fingerprint and not made.name.startswith("."):
            (scratch.folder / "models" / made.name).symlink_to(made.absolute())


def _sizes(plan: Plan, stage: PlanStage, state: State) -> tuple[int, int]:
    """Steps of a training or responses: of the first slice, and of the stage. A provider's answers are paid for, so that
    to a probe the stage has no more than the first slice."""
    spec = stage.spec
    if isinstance(spec, Training):
        planned = stage.costs.extra["steps"].mid if stage.costs is not None else None
        whole = int(planned or STEPS)
        return min(STEPS, whole), whole
    assert isinstance(spec, Sample | Eval), "no other stage is probed"
    engine = spec.engine or (spec.model.engine if isinstance(spec.model, Model) else None)
    if isinstance(engine, OpenAI):
        return SAMPLES, SAMPLES
    whole = spec.n * sum(1 for _ in read_rows(work_order(plan, stage, state).inputs))
    return min(SAMPLES, whole), whole


def _measure(plan: Plan, stage: PlanStage, size: int, state: State, lock: Lock) -> Measured:
    """One slice in a folder that is thrown away."""
    scratch = State(state.folder / "probe")
    shutil.rmtree(scratch.folder, ignore_errors=True)
    try:
        _share(state, scratch, stage)
        work = _slice(plan, stage, size, state, scratch)
        began = time.time()
        _run(work, state, scratch, lock)
        return _measured(work, stage, began, time.time())
    finally:
        shutil.rmtree(scratch.folder, ignore_errors=True)


def _slice(plan: Plan, stage: PlanStage, size: int, state: State, scratch: State) -> Work:
    """The stage's work order, shortened: a few steps of a training at its real batches, a few rows to answer."""
    work, spec = work_order(plan, stage, state), stage.spec
    places = {
        "state": str(scratch.folder),
        "out": str(scratch.artifact(stage.fingerprint)),
        "progress": str(scratch.progress(stage.fingerprint)),
    }
    if not isinstance(spec, Training):
        assert isinstance(spec, Sample | Eval), "no other stage is probed"
        each = -(-size // (spec.n * len(work.inputs)))
        inputs = tuple(_some(rows, each, scratch) for rows in work.inputs)
        return work.model_copy(update={**places, "inputs": inputs})
    short: dict[str, Any] = {"steps": size, "epochs": None, "checkpoint": None}
    if isinstance(spec, Rl):
        short["watch"] = None
    shorter = stage.model_copy(update={"spec": spec.model_copy(update=short)})
    return work.model_copy(update={**places, "stage": shorter})


def _some(rows: InputRows, count: int, scratch: State) -> InputRows:
    """About so many rows of a set, from all over it."""
    whole = list(read_rows([rows]))
    part = whole[:: max(1, len(whole) // count)][:count]
    folder = scratch.folder / "inputs" / rows.fingerprint
    Shards(folder).write(0, {"row": part})
    return rows.model_copy(update={"folder": str(folder)})


def _run(work: Work, state: State, scratch: State, lock: Lock) -> None:
    stage = work.stage
    command, env = put_order(work, scratch.work(stage.fingerprint))
    log = state.log(f"{stage.name}.probe")
    worker = supervise.start(command, env, log, lock.descriptor, state.lock)
    try:
        while worker.process.poll() is None:
            time.sleep(_POLL_S)
    finally:
        worker.stop()
    if not (Path(work.out) / "done.json").exists():
        tail = supervise.Tail(Path(work.progress))
        tail.read()
        nowhere = scratch.checkpoints(stage.fingerprint)
        raise supervise.why_it_stopped(worker, stage, Path(work.out), nowhere, tail)


def _measured(work: Work, stage: PlanStage, began: float, ended: float) -> Measured:
    done = Path(work.out) / "done.json"
    if isinstance(stage.spec, Training):
        units, tokens, seconds = _trained(work, in_steps=stage.spec.steps is not None)
    else:
        units, tokens, seconds = _answered(work, done.stat().st_mtime)
    if not tokens:
        raise RunError(f"{work.stage.address}: the probe made no tokens, so nothing was measured")
    peak = float(json.loads(done.read_text())["peak_bytes"])
    return Measured(units, tokens, seconds, max(0.0, ended - began - seconds), peak)


def _answered(work: Work, ended: float) -> tuple[float, float, float]:
    """Samples, their tokens, and the seconds that so many take in the middle of the work, with what follows on them.

    The first quarter, with the engine's first batch, and the last, when the batch runs empty, are as long for a thousand
    samples as for a million; so what they take beyond their share counts as start.
    """
    found = supervise.Tail(Path(work.progress)).read()
    lines = [(line["done"], line["at"]) for line in found if line["unit"] == "samples"]
    written = [int(row["num_tokens"] or 0) for row in _table(work, "row")]
    (first, opened), (last, answered) = lines[0], lines[-1]
    early = next(line for line in lines if line[0] - first >= (last - first) / 4)
    late = next(line for line in lines if line[0] - first >= (last - first) * 3 / 4)
    asked = answered - opened
    if late[0] > early[0]:
        asked = min(asked, (late[1] - early[1]) / (late[0] - early[0]) * (last - first))
    return len(written), sum(written), asked + ended - answered


def _trained(work: Work, in_steps: bool) -> tuple[float, float, float]:
    """Steps, or the rows that they used, their tokens, and the seconds at the speed of the later half of the steps: the
    stage goes on like them, and what the earlier ones take beyond counts as start."""
    figures = list(_table(work, "metric"))
    tokens = {line["step"]: line["value"] for line in figures if line["name"] == "tokens"}
    speed = {line["step"]: line["value"] for line in figures if line["name"] == "tokens_per_s"}
    steps = sorted(tokens)
    timed = steps[len(steps) // 2 :]
    took = sum(tokens[step] / speed[step] for step in timed if speed[step])
    rate = sum(tokens[step] for step in timed) / max(took, 1e-9)
    whole = sum(tokens.values())
    units = len(steps) if in_steps else sum(1 for _ in _table(work, "use"))
    return units, whole, whole / max(rate, 1e-9)


def _table(work: Work, name: str) -> Iterator[dict[str, Any]]:
    for shard in Shards(work.out).read():
        if name in shard.files:
            yield from read_table(shard.files[name])
