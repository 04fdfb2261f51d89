"""Questions to a model that answers them better: the order of prompts, rollouts, and the steps made of them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omr_runtime.errors import Resumable, RunError
from omr_runtime.models import Loaded, load
from omr_runtime.store import ImageStore
from omr_runtime.train.batching import order_key, steps_of
from omr_runtime.train.checkpoint import Checkpoints, default_interval, open_checkpoints
from omr_runtime.train.launch import num_processes
from omr_runtime.train.loop import Trainer, open_accelerator, starting_folder
from omr_runtime.train.metrics import RunLog
from omr_runtime.train.policy import Policy, UpdateFigures, open_policy
from omr_runtime.train.rollout import (
    Member,
    Questions,
    Rollout,
    Rollouts,
    every,
    open_rollouts,
    roll_out,
)
from omr_runtime.train.schedule import learning_rate
from omr_runtime.train.sft import copy_companions
from omr_runtime.verify.asking import cascade_for
from omr_runtime.verify.reward import Reward
from omr_runtime.work import Work, finish, read_rows
from omrlang.schema import Rl
from omrlang.types import Descending

TOO_LONG = "prompt_too_long"


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of each step, and the positions of rows that are left out as too long."""

    steps: Sequence[tuple[Member, ...]]
    too_long: Sequence[int]


def plan_prompts(
    ids: Sequence[str],
    lengths: Sequence[int],
    spec: Rl,
    places: Sequence[float | None] | None = None,
) -> Prompts:
    """Which rows each step asks: epoch after epoch by sha256(seed, epoch, id), or in every epoch by ``places``, equal
    ones by sha256(seed, id). A function of rows, lengths and settings alone, so that a resumed run goes on."""
    fitting = [i for i in range(len(ids)) if lengths[i] <= spec.max_prompt]

    def key(i: int, number: int) -> tuple[bool, float, bytes]:
        if places is None:
            return False, 0.0, order_key(spec.seed, f"prompts {number}", ids[i])
        place = places[i]
        down = isinstance(spec.order, Descending)
        value = 0.0 if place is None else -place if down else place
        return place is None, value, order_key(spec.seed, "prompts", ids[i])

    def epoch(number: int, fraction: float) -> Iterator[tuple[int, ...]]:
        order = sorted(fitting, key=lambda i: key(i, number))
        yield from ((i,) for i in order[: round(fraction * len(order))])

    steps = steps_of(epoch, prompts_of_step(spec), spec.steps, spec.epochs)
    return Prompts([_members(rows) for rows in steps], sorted(set(range(len(ids))) - set(fitting)))


def _members(rows: Sequence[int]) -> tuple[Member, ...]:
    """Where one epoch ends and the next begins a step may ask the same row again: then it draws other rollouts."""
    asked: Counter[int] = Counter()
    members = []
    for row in rows:
        members.append(Member(row, asked[row]))
        asked[row] += 1
    return tuple(members)


def prompts_of_step(spec: Rl) -> int:
    """Prompts of one rollout step, over all processes."""
    return round(spec.batch.value) * (
        num_processes(spec) if spec.batch.unit.endswith("/ gpu") else 1
    )


def minibatches(members: Sequence[Member], spec: Rl) -> list[Sequence[Member]]:
    """The prompts of each update of a step."""
    if spec.minibatch is None:
        return [members]
    per_process = spec.minibatch.unit.endswith("/ gpu")
    size = round(spec.minibatch.value) * (num_processes(spec) if per_process else 1)
    return [members[start : start + size] for start in range(0, len(members), size)]


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
    loaded = load(starting_folder(work, spec, accelerator), spec.precision, str(accelerator.device))
    assert loaded.model is not None, "weights were asked for"
    trainer = Trainer(accelerator, loaded.model, spec)
    run = _prepare(work, spec, trainer, loaded)
    model = Path(work.state) / "models" / work.stage.fingerprint
    checkpoints = open_checkpoints(work, trainer, spec)
    finished = checkpoints.finished(model)
    if finished is None:
        _all_steps(run, loaded, checkpoints)
        write = partial(_write_model, trainer, loaded.folder)
        checkpoints.finish(model, write, run.log.take(), run.totals)
    else:
        run.totals = finished
    run.log.close()
    if trainer.is_main:
        finish(work, _summary(run))
    checkpoints.close()


def _prepare(work: Work, spec: Rl, trainer: Trainer, loaded: Loaded) -> Run:
    rows = list(read_rows(work.inputs))
    questions = Questions(rows, loaded, spec, ImageStore(work.state))
    lengths = questions.lengths(trainer)
    places = _places(work, spec, trainer, rows)
    prompts = plan_prompts([row["id"] for row in rows], lengths, spec, places)
    if not prompts.steps:
        raise RunError(
            f"{spec.name}: no prompt to train on "
            f"({len(prompts.too_long)} of {len(rows)} are longer than max_prompt, {spec.max_prompt} tokens)"
        )
    return Run(work, spec, trainer, questions, prompts, RunLog(work, trainer, len(prompts.steps)))


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


def _all_steps(run: Run, loaded: Loaded, checkpoints: Checkpoints) -> None:
    """All steps that are still to do; rollouts are published with the checkpoint that they led to."""
    spec, num_steps = run.spec, len(run.prompts.steps)
    between = spec.checkpoint.every if spec.checkpoint else default_interval(num_steps)
    rollouts = open_rollouts(spec, run.trainer, loaded)
    policy = open_policy(spec, run.trainer, loaded)
    totals = checkpoints.resume()
    if totals is None:
        totals = {"step": 0, "tokens": 0, "seconds": 0.0, "reward": None}
        _log_too_long(run)
    run.totals = totals
    cascade = cascade_for(run.work, spec.reward, spec.prompt, num_workers=1)
    try:
        with Reward(cascade) as reward:
            for step in range(totals["step"], num_steps):
                _step(run, step, rollouts, reward, policy)
                if (step + 1) % between == 0 and step + 1 < num_steps:
                    checkpoints.save(step + 1, run.log.take(), totals)
    finally:
        rollouts.roller.close()


def _log_too_long(run: Run) -> None:
    for i in run.prompts.too_long:
        row = run.questions.rows[i]
        reason = f"longer than max_prompt, {run.spec.max_prompt} tokens"
        run.log.add("dropped", [{"row": row["id"], "source": row["source"], "reason": TOO_LONG}])
        verdict = {"row": row["id"], "rule": TOO_LONG, "ok": False, "reason": reason, "score": None}
        run.log.add("verdict", [verdict])


def _step(run: Run, step: int, rollouts: Rollouts, reward: Reward, policy: Policy) -> None:
    """Roll out one batch of prompts and make its updates."""
    trainer, spec, start = run.trainer, run.spec, time.perf_counter()
    if step > 0:
        rollouts.refresh(trainer)
    members = run.prompts.steps[step]
    mine = [part[trainer.rank :: trainer.num_ranks] for part in minibatches(members, spec)]
    groups = roll_out(
        run.questions, [member for part in mine for member in part], step, rollouts, reward
    )
    rolled = time.perf_counter()
    batches, at = [], 0
    for part in mine:
        batches.append(groups[at : at + len(part)])
        at += len(part)
    lr = learning_rate(spec.lr, step, len(run.prompts.steps))
    updates = policy.update(batches, lr)
    metrics = _figures(trainer, groups, updates)
    end = time.perf_counter()
    metrics |= {
        "lr": lr,
        "tokens_per_s": metrics["tokens"] / (end - start),
        "rollout_s": rolled - start,
        "update_s": end - rolled,
    }
    _account(run, step, members, groups, metrics)


def _account(
    run: Run,
    step: int,
    members: Sequence[Member],
    groups: Sequence[Sequence[Rollout]],
    metrics: dict[str, float],
) -> None:
    """Records, figures and totals of a step that is done."""
    totals, log = run.totals, run.log
    fingerprint = run.work.stage.fingerprint
    for records in run.trainer.gather([r.record(step + 1, fingerprint) for r in every(groups)]):
        log.add("rollout", records)
    log.step(step + 1, metrics, dict.fromkeys(run.questions.rows[m.row]["id"] for m in members))
    totals["step"] = step + 1
    totals["tokens"] += int(metrics["tokens"])
    totals["seconds"] += metrics["rollout_s"] + metrics["update_s"]
    for name in ("reward", "response_tokens", "entropy"):
        totals[name] = metrics.get(name)


def _figures(
    trainer: Trainer, groups: Sequence[Sequence[Rollout]], updates: Sequence[UpdateFigures]
) -> dict[str, float]:
    """Means over all ranks' rollouts, and over the step's updates."""
    sums = _sums(groups)
    names = sorted({name for names in trainer.gather(sorted(sums)) for name in names})
    total = dict(zip(names, trainer.total([sums.get(name, 0.0) for name in names]), strict=True))
    count = max(total["rollouts"], 1.0)
    metrics = {
        "response_tokens": total["response_tokens"] / count,
        "length_stops": total["length_stops"] / count,
        "zero_variance_groups": total["zero_variance_groups"],
        "tokens": total["tokens"],
    }
    for name in names:
        if name.startswith("num known "):
            what = name.removeprefix("num known ")
            metrics[what] = total[f"sum {what}"] / total[name]
    for name in UpdateFigures.__slots__:
        metrics[name] = sum(getattr(update, name) for update in updates) / len(updates)
    return metrics


def _sums(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """What this rank adds to each mean. A value that is unknown is left out of its mean."""
    sums: dict[str, float] = defaultdict(float)
    for name in ("rollouts", "response_tokens", "length_stops", "tokens", "zero_variance_groups"):
        sums[name] = 0.0
    for group in groups:
        sums["zero_variance_groups"] += bool(group) and group[0].flat
        for rollout in group:
            sums["rollouts"] += 1
            sums["response_tokens"] += len(rollout.token_ids)
            sums["tokens"] += len(rollout.token_ids) + len(rollout.ask.input_ids)
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
    kept = ("reward", "response_tokens", "entropy")
    metrics = {"steps": totals["step"], "tokens_per_s": rate}
    return {
        "num_in": len(run.questions.rows),
        "tokens": int(totals["tokens"]),
        "mean_response_tokens": totals.get("response_tokens"),
        "rates": {f"rl/{name}/{num_processes(spec)}": rate},
        "metrics": metrics | {name: totals.get(name) for name in kept},
    }
