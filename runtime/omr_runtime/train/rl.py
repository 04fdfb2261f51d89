"""Questions to a model that answers them better: the order of prompts, rollouts, and the steps made of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omr_runtime.errors import Resumable, RunError
from omr_runtime.models import Loaded, load
from omr_runtime.shortage import in_step
from omr_runtime.store import ImageStore
from omr_runtime.train.checkpoint import Checkpoints, default_interval, open_checkpoints
from omr_runtime.train.fill import UNFINISHED, Batch, reason_unused
from omr_runtime.train.loop import Trainer, open_accelerator, starting_folder, where_to_load
from omr_runtime.train.metrics import RunLog
from omr_runtime.train.policy import Policy, UpdateFigures, open_policy
from omr_runtime.train.prompts import Prompts, plan_prompts, prompts_of_update
from omr_runtime.train.rollout import Questions, Rollout, Rollouts, open_rollouts
from omr_runtime.train.schedule import learning_rate
from omr_runtime.train.sft import copy_companions
from omr_runtime.train.stopping import Stop, listening, stopped
from omr_runtime.train.supply import Drawing, Supply, open_supply
from omr_runtime.train.watch import NAME as WATCHED
from omr_runtime.train.watch import Watcher, open_watch
from omr_runtime.verify.asking import cascade_for
from omr_runtime.verify.reward import Reward
from omr_runtime.work import Work, finish, read_rows
from omrlang.schema import Rl
from omrlang.settle import num_devices

TOO_LONG = "prompt_too_long"

MEANS = tuple(name for name in UpdateFigures.__slots__ if name != "flops")
"""Figures of an update of which a step has the mean."""


@dataclass(slots=True)
class Run:
    """What stays the same over the steps of one run."""

    work: Work
    spec: Rl
    trainer: Trainer
    questions: Questions
    prompts: Prompts
    log: RunLog
    totals: dict[str, Any] = field(default_factory=dict)


def train(work: Work) -> None:
    """Run the stage on this process."""
    spec = work.stage.spec
    assert isinstance(spec, Rl)
    accelerator = open_accelerator(spec)
    folder = starting_folder(work, spec, accelerator)
    loaded = load(folder, spec.precision, where_to_load(accelerator, spec))
    assert loaded.model is not None, "weights were asked for"
    trainer = Trainer(accelerator, loaded.model, spec)
    run = _prepare(work, spec, trainer, loaded)
    model = Path(work.state) / "models" / work.stage.fingerprint
    checkpoints = open_checkpoints(work, trainer, spec)
    finished = checkpoints.finished(model)
    if finished is None:
        with listening(work, trainer) as stop:
            _all_steps(run, loaded, checkpoints, stop)
        write = partial(_write_model, trainer, loaded.folder)
        checkpoints.finish(model, write, run.log.take(), run.totals)
    else:
        run.totals = finished
    run.log.close()
    if trainer.is_main:
        finish(work, _summary(run))
    checkpoints.close()
    trainer.leave()


def _prepare(work: Work, spec: Rl, trainer: Trainer, loaded: Loaded) -> Run:
    rows = list(read_rows(work.inputs))
    questions = Questions(rows, loaded, spec, ImageStore(work.state))
    lengths = questions.lengths(trainer)
    places = _places(work, spec, trainer, rows)
    prompts = plan_prompts([row["id"] for row in rows], lengths, spec, places)
    if not prompts.num_steps:
        raise RunError(
            f"{spec.name}: no prompt to train on "
            f"({len(prompts.too_long)} of {len(rows)} are longer than max_prompt, {spec.max_prompt} tokens)"
        )
    return Run(work, spec, trainer, questions, prompts, RunLog(work, trainer, prompts.num_steps))


def _places(
    work: Work, spec: Rl, trainer: Trainer, rows: Sequence[dict[str, Any]]
) -> list[float | None] | None:
    """What ``order`` gives for each row; found by one process, so that a judge is asked once."""
    if spec.order is None:
        return None
    found: list[float | None] | str = []
    if trainer.is_main:
        with cascade_for(work, spec.order.by) as cascade:
            outcomes = list(cascade.evaluate(rows))
        unknown = sum(outcome.undecided for outcome in outcomes)
        found = [None if one.value is None else float(one.value) for one in outcomes]
        if unknown:
            found = f"{spec.name}: `order` could not be answered for {unknown:,} rows"
    whole: list[float | None] | str = trainer.gather(found)[0]
    if isinstance(whole, str):
        raise Resumable(whole)
    return whole


def _all_steps(run: Run, loaded: Loaded, checkpoints: Checkpoints, stop: Stop) -> None:
    """All steps that are still to do; rollouts are published with the checkpoint that they led to. Resumable where the ranks
    were asked to stop."""
    spec, work, trainer = run.spec, run.work, run.trainer
    cascade = cascade_for(work, spec.reward, spec.prompt, num_workers=1)
    with ExitStack() as stack:
        watcher = stack.enter_context(open_watch(work, spec, trainer, loaded))
        longest = max(spec.max_prompt + spec.max_response, watcher.longest if watcher else 0)
        rollouts = open_rollouts(spec, trainer, loaded, longest)
        stack.callback(rollouts.roller.close)
        policy = open_policy(spec, trainer, loaded, run.questions.ask_of)
        reward = stack.enter_context(Reward(cascade))
        supply = open_supply(Drawing(spec, trainer, run.questions, run.prompts, rollouts, reward))
        stack.callback(supply.close)
        totals = checkpoints.resume(supply.load)
        run.totals = totals or _at_the_start()
        if totals is None:
            _log_too_long(run)
            _look(run, rollouts, watcher)
        for step in range(run.totals["step"], run.prompts.num_steps):
            with in_step(step + 1, run.prompts.num_steps):
                asked = _step(run, step, rollouts, supply, policy, stop)
                _look(run, rollouts, watcher)
            asked = asked and step + 1 < run.prompts.num_steps
            if asked or _saves(run, step + 1):
                checkpoints.save(step + 1, run.log.take(), run.totals, supply.save)
            if asked:
                raise stopped(trainer, step + 1, run.prompts.num_steps)


def _at_the_start() -> dict[str, Any]:
    """``asked`` prompts are how far the stream of prompts was read."""
    return {
        "step": 0,
        "asked": 0,
        "judged": 0,
        "teaching": 0,
        "tokens": 0,
        "seconds": 0.0,
        "watch": [],
    }


def _saves(run: Run, step: int) -> bool:
    """Whether a checkpoint is written after so many steps; the last step gives the model itself."""
    last = run.prompts.num_steps
    between = run.spec.checkpoint.every if run.spec.checkpoint else default_interval(last)
    return step % between == 0 and step < last


def _look(run: Run, rollouts: Rollouts, watcher: Watcher | None) -> None:
    """Validation after the steps that are done, where it is due."""
    step = run.totals["step"]
    if watcher is None or not watcher.is_due(step):
        return
    rollouts.refresh(run.trainer)
    found = watcher.look(rollouts)
    run.log.figures(step, found)
    shown = {name.removeprefix(f"{WATCHED}/"): value for name, value in found.items()}
    run.totals["watch"].append({"step": step, **shown})


def _log_too_long(run: Run) -> None:
    for i in run.prompts.too_long:
        row = run.questions.rows[i]
        reason = f"longer than max_prompt, {run.spec.max_prompt} tokens"
        run.log.add("dropped", [{"row": row["id"], "source": row["source"], "reason": TOO_LONG}])
        verdict = {"row": row["id"], "rule": TOO_LONG, "ok": False, "reason": reason, "score": None}
        run.log.add("verdict", [verdict])


def _step(
    run: Run, step: int, rollouts: Rollouts, supply: Supply, policy: Policy, stop: Stop
) -> bool:
    """Make the updates of one batch of rollouts; whether any rank was asked to stop meanwhile."""
    trainer, first, start = run.trainer, run.totals["asked"], time.perf_counter()
    pushed = rollouts.push_s
    batch = supply.batch(step, first)
    supply.begin(step + 1, first + batch.num_asked)
    begun = time.perf_counter()
    lr = learning_rate(run.spec.lr, step, run.prompts.num_steps)
    updates = policy.update(batch.parts(prompts_of_update(run.spec)), lr)
    metrics = _figures(trainer, batch, updates)
    learned = time.perf_counter()
    supply.settle()
    end = time.perf_counter()
    metrics |= {
        "lr": lr,
        "prompts": batch.num_asked,
        "spread_share": batch.num_teaching / max(1, batch.num_judged),
        "tokens_per_s": metrics["tokens"] / (end - start),
        "push_s": rollouts.push_s - pushed,
        "rollout_s": batch.rollout_s,
        "reward_s": batch.reward_s,
        "update_s": learned - begun,
        **trainer.speed(sum(update.flops for update in updates), learned - begun),
        "wait_s": end - learned,
        "step_s": end - start,
    }
    return _account(run, step, batch, metrics, stop)


def _account(run: Run, step: int, batch: Batch, metrics: dict[str, float], stop: Stop) -> bool:
    """Records, figures and totals of a step that is done. With their records ranks tell whether they were asked to stop."""
    totals, log = run.totals, run.log
    told = run.trainer.gather((list(_records(run, step, batch)), stop.asked()))
    for records, _ in told:
        log.add("rollout", records)
    used = dict.fromkeys(run.questions.rows[member.row]["id"] for member in batch.members)
    log.step(step + 1, metrics, used)
    totals["step"] = step + 1
    totals["asked"] += batch.num_asked
    totals["judged"] = totals.get("judged", totals["asked"] - batch.num_asked) + batch.num_judged
    totals["teaching"] += batch.num_teaching
    totals["tokens"] += int(metrics["tokens"])
    totals["seconds"] += metrics["step_s"]
    for name in ("reward", "response_tokens", "entropy"):
        totals[name] = metrics.get(name)
    return any(asked for _, asked in told)


def _records(run: Run, step: int, batch: Batch) -> Iterator[dict[str, Any]]:
    """Every rollout of this rank, also of groups that are not in the batch."""
    used = ((group, reason_unused(group, run.spec)) for _, group in sorted(batch.groups.items()))
    for group, reason in (*used, *batch.left_out):
        yield from (r.record(step + 1, run.work.stage.fingerprint, reason) for r in group)


def _figures(trainer: Trainer, batch: Batch, updates: Sequence[UpdateFigures]) -> dict[str, float]:
    """Means over all ranks' rollouts, also those that were left out, and over the step's updates. ``tokens`` are those of
    the batch alone."""
    left_out = (group for group, reason in batch.left_out if reason != UNFINISHED)
    sums = _sums([*batch.groups.values(), *left_out]) | batch.more
    sums["tokens"] = sum(rollout.num_tokens for group in batch.groups.values() for rollout in group)
    names = sorted({name for names in trainer.gather(sorted(sums)) for name in names})
    total = dict(zip(names, trainer.total([sums.get(name, 0.0) for name in names]), strict=True))
    count = max(total["rollouts"], 1.0)
    metrics = {
        "response_tokens": total["response_tokens"] / count,
        "length_stops": total["length_stops"] / count,
        "zero_variance_groups": total["zero_variance_groups"],
        "tokens": total["tokens"],
        **{name: total[name] for name in batch.more},
    }
    for name in names:
        if name.startswith("num known "):
            what = name.removeprefix("num known ")
            metrics[what] = total[f"sum {what}"] / total[name]
    for name in MEANS:
        values = [value for update in updates if (value := getattr(update, name)) is not None]
        if values:
            metrics[name] = sum(values) / len(values)
    return metrics


def _sums(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """What this rank adds to each mean. A value that is unknown is left out of its mean."""
    sums: dict[str, float] = defaultdict(float)
    for name in ("rollouts", "response_tokens", "length_stops", "zero_variance_groups"):
        sums[name] = 0.0
    for group in groups:
        sums["zero_variance_groups"] += bool(group) and group[0].flat
        for rollout in group:
            sums["rollouts"] += 1
            sums["response_tokens"] += len(rollout.token_ids)
            sums["length_stops"] += not rollout.stopped
            parts = {f"reward/{name}": value for name, value in rollout.scored.parts.items()}
            for name, value in {"reward": rollout.scored.value, **parts}.items():
                if value is not None:
                    sums[f"sum {name}"] += value
                    sums[f"num known {name}"] += 1
    return sums


def _write_model(trainer: Trainer, base: Path, folder: Path) -> None:
    trainer.save_model(folder)
    if trainer.is_main:
        copy_companions(base, folder)


def _summary(run: Run) -> dict[str, Any]:
    spec, totals = run.spec, run.totals
    name = spec.model.name if spec.model.kind == "model" else spec.model.stage
    rate = totals["tokens"] / max(totals["seconds"], 1e-9)
    watched = {"watch": totals["watch"]} if totals["watch"] else {}
    kept = ("reward", "response_tokens", "entropy")
    metrics = {
        "steps": totals["step"],
        "tokens_per_s": rate,
        "prompts": totals["asked"],
    }
    return {
        "num_in": len(run.questions.rows),
        "tokens": int(totals["tokens"]),
        "mean_response_tokens": totals.get("response_tokens"),
        "spread_share": totals["teaching"] / max(1, totals["judged"]),
        "rates": {f"rl/{name}/{num_devices(spec)}": rate},
        "metrics": metrics | {name: totals.get(name) for name in kept} | watched,
    }
