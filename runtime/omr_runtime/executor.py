"""A plan to a finished run: its stages in order, each a worker process whose shards are committed as they come.

The driver imports nothing heavy: a second run of a finished recipe ends after reading the index.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from omr_runtime import expectations, supervise
from omr_runtime.errors import DamagedArtifact, Resumable, RunError, is_disk_full
from omr_runtime.lock import Lock, hold
from omr_runtime.order import write_work
from omr_runtime.progress import Display, display
from omr_runtime.record import Record
from omr_runtime.store import State, mark_damaged, read_index, write_index
from omr_runtime.train import launch
from omr_runtime.work import Shards
from omrlang.plan import Plan, PlanStage
from omrlang.schema.sft import Training

_POLL_S = 0.05
_COMMIT_EVERY_S = 1.0
_STOPPING = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 110.0
"""What a training is given after SIGTERM, for the rest of a step and a checkpoint: less than the two minutes' notice that a
script of ``omr run --emit slurm`` asks for. Slurm without notice kills after KillWait, 30 s by default."""

_ECHO_S = 1.0
"""SIGTERM within so short a time is the same one: `scancel` tells a job's shell, which passes it on, and the driver too."""

STALE = 4
INTERRUPTED = Resumable.exit_code


class Interrupted(BaseException):
    """SIGINT or SIGTERM: not an error of any stage, so nothing on the way may catch it. ``gently`` is Ctrl-C, which leaves
    time to finish what is begun; whoever sends SIGTERM will not wait, except for a training to save."""

    def __init__(self, gently: bool = False) -> None:
        super().__init__()
        self.gently = gently


@dataclass(slots=True)
class Run:
    """One run under way."""

    plan: Plan
    state: State
    lock: Lock
    show: Display
    record: Record
    executed: list[str] = field(default_factory=list)


def prepare(state: State, lock: Lock) -> None:
    """Before a plan is made: bring the index up to what is committed, and see which artifacts are whole."""
    index = read_index(state)
    changed = False
    if not lock.was_clean and state.lineage.exists():
        changed = Record(state, "", index).catch_up()
    if mark_damaged(state, index) or changed:
        write_index(state, index)


def execute(
    plan: Plan,
    state: Path,
    *,
    lock: Lock | None = None,
    show: Display | None = None,
    wait: bool = False,
) -> tuple[int, list[str]]:
    """Run the plan; the exit code and the names of the stages that were executed. Shows its own errors."""
    folder = State(state)
    if lock is None:
        with hold(folder, wait) as held:
            prepare(folder, held)
            return execute(plan, state, lock=held, show=show)
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    shown = show or display()
    run = Run(plan, folder, lock, shown, Record(folder, run_id, read_index(folder)))
    try:
        with _signals_interrupt():
            code = _run_all(run)
    finally:
        shown.close()
    return code, run.executed


def _run_all(run: Run) -> int:
    todo = run.plan.due
    if stale := _no_longer_there(run):
        run.show.message(
            f"the plan is stale: {', '.join(stale)} is no longer in {run.state.folder}; plan again"
        )
        return STALE
    code = 0
    try:
        run.record.start(run.plan, todo)
        _make_room(run, todo)
        _missing_cards(run)
        for number, stage in enumerate(todo, start=1):
            _run_stage(run, stage, number, len(todo))
    except RunError as error:
        code = error.exit_code
        run.show.message(_with_advice(str(error), code))
    except OSError as error:
        code = INTERRUPTED if is_disk_full(error) else 1
        run.show.message(_with_advice(_system_error(error), code))
    except Interrupted:
        code = INTERRUPTED
        run.show.message(_with_advice("interrupted", code))
    if todo:
        _close(run, code)
    return code


def _no_longer_there(run: Run) -> list[str]:
    """Stages that the plan counts on as they are, and that no stage of this run makes."""
    made = {stage.fingerprint for stage in run.plan.due}
    return [
        stage.name
        for stage in run.plan.stages
        if stage.action == "cached"
        and stage.fingerprint not in made
        and not run.record.is_done(stage.fingerprint)
    ]


def _make_room(run: Run, todo: tuple[PlanStage, ...]) -> None:
    """Take away what is to be made again, all of it before the first stage runs: what stands on an artifact must not
    outlive it, however the run ends."""
    for stage in todo:
        if stage.action == "redo" and run.record.knows(stage.fingerprint):
            _forget(run, stage)


def _close(run: Run, code: int) -> None:
    """Say in the lineage how the run ended; on a full disk the message that was shown must be enough."""
    try:
        run.record.end(code, run.executed)
    except (RunError, OSError) as error:
        run.show.message(f"the end of the run could not be recorded: {error}")


def _system_error(error: OSError) -> str:
    if is_disk_full(error):
        return "the disk is full; free some space first"
    return f"{error.filename or 'the state folder'}: {error.strerror or error}"


def _with_advice(message: str, code: int) -> str:
    if code != INTERRUPTED:
        return f"error: {message}"
    return f"stopped: {message}\nwhat was committed is kept; the same command goes on from there"


def _run_stage(run: Run, stage: PlanStage, number: int, total: int) -> None:
    """One stage to its finished artifact."""
    run.show.start(stage.address, number, total)
    fingerprint = stage.fingerprint
    if run.record.is_done(fingerprint):  # an equal stage of this plan made it
        run.executed.append(stage.name)
        run.show.end("as an equal stage above")
        return
    if run.record.must_start_over(stage):
        _forget(run, stage)
    out = run.state.artifact(fingerprint)
    started = time.monotonic()
    try:
        run.executed.append(stage.name)
        if not (out / "done.json").exists():
            _work(run, stage, started)
        entry = run.record.finish(stage, run.plan, time.monotonic() - started)
    except DamagedArtifact as error:
        run.record.damaged(error.path)
        raise
    except (RunError, OSError, Interrupted) as error:
        failed = isinstance(error, RunError) and not isinstance(error, Resumable)
        with contextlib.suppress(RunError, OSError):
            run.record.stop(stage, time.monotonic() - started, "failed" if failed else "partial")
        raise
    _card(run, stage)
    run.show.end(_outcome(entry))
    expectations.check(stage, entry)


def _card(run: Run, stage: PlanStage) -> None:
    """The card of the model that the stage trained or judged, in the model's folder."""
    from omr_runtime.export.trained import judged_model, write_card

    name = stage.name if stage.spec.kind in ("sft", "rl") else judged_model(stage.spec)
    if name is not None and run.record.is_done(run.plan.stage(name).fingerprint):
        write_card(run.plan, run.state, run.record.index["stages"], name)


def _missing_cards(run: Run) -> None:
    """Those of models whose run was killed between the last commit and the card."""
    for stage in run.plan.stages:
        if stage.spec.kind in ("sft", "rl") and run.record.is_done(stage.fingerprint):
            folder = run.state.model(stage.fingerprint)
            if (folder / "config.json").exists() and not (folder / "README.md").exists():
                _card(run, stage)


def _outcome(entry: dict[str, Any]) -> str:
    if entry["kind"] in ("sft", "rl"):
        return f"{entry.get('steps_done') or 0:,} steps in {entry['seconds']:.1f} s"
    return f"{entry['num_rows']:,} rows in {entry['seconds']:.1f} s"


def _forget(run: Run, stage: PlanStage) -> None:
    """Take an artifact away before it is made again."""
    run.record.forget(stage.fingerprint)
    shutil.rmtree(run.state.artifact(stage.fingerprint), ignore_errors=True)
    shutil.rmtree(run.state.model(stage.fingerprint), ignore_errors=True)
    shutil.rmtree(run.state.checkpoints(stage.fingerprint), ignore_errors=True)


def _work(run: Run, stage: PlanStage, started: float) -> None:
    """Run the worker; commit its shards while it runs. Raises what the worker left as its reason."""
    command, env = write_work(run.plan, stage, run.state)
    if isinstance(stage.spec, Training) and (said := launch.without_gpu(stage.spec)) is not None:
        run.show.message(said)
    worker = supervise.start(
        command, env, run.state.log(stage.name), run.lock.descriptor, run.state.lock
    )
    tail = supervise.Tail(run.state.progress(stage.fingerprint))
    shards = Shards(run.state.artifact(stage.fingerprint))
    last_commit = time.monotonic()
    try:
        while worker.process.poll() is None:
            for line in tail.read()[-1:]:
                run.show.update(line)
            if time.monotonic() - last_commit > _COMMIT_EVERY_S:
                run.record.commit(stage, shards, time.monotonic() - started)
                last_commit = time.monotonic()
            time.sleep(_POLL_S)
    except Interrupted as interrupted:
        _wind_down(run, stage, worker, tail, interrupted.gently)
        raise
    finally:
        worker.stop()
    for line in tail.read()[-1:]:
        run.show.update(line)
    if not (shards.folder / "done.json").exists():
        checkpoints = run.state.checkpoints(stage.fingerprint)
        raise supervise.why_it_stopped(worker, stage, shards.folder, checkpoints, tail)


def _wind_down(
    run: Run, stage: PlanStage, worker: supervise.Worker, tail: supervise.Tail, gently: bool
) -> None:
    """Let a training save what it has done, and after Ctrl-C any worker finish what it had begun; a second signal ends the
    wait."""
    trains = stage.spec.kind in ("sft", "rl")
    if trains:
        run.show.message("saving after the step that runs; a second signal stops at once")
        run.state.stop(stage.fingerprint).touch()
    elif gently:
        run.show.message("finishing what is in flight; Ctrl-C again stops at once")
        worker.wind_down()
    else:
        return
    _wait(run, worker, tail, None if gently else GRACE_S)
    left = supervise.reason_left(run.state.artifact(stage.fingerprint)) if trains else None
    if left is not None:
        run.show.message(f"{stage.address}: {left['message']}")


def _wait(run: Run, worker: supervise.Worker, tail: supervise.Tail, seconds: float | None) -> None:
    """Until the worker has ended, or another signal comes, or the time is over."""
    enough, began = threading.Event(), time.monotonic()

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT or time.monotonic() - began > _ECHO_S:
            enough.set()

    before = {number: signal.signal(number, stop) for number in _STOPPING}
    end = math.inf if seconds is None else time.monotonic() + seconds
    try:
        while worker.process.poll() is None and not enough.is_set() and time.monotonic() < end:
            for line in tail.read()[-1:]:
                run.show.update(line)
            time.sleep(_POLL_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGINT and SIGTERM end the run cleanly; a second one while it cleans up changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise Interrupted(gently=number == signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
