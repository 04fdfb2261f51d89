"""Rows with responses to a fine-tuned model: packing, the order of steps, and the loop over them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from omr_runtime import chat
from omr_runtime.errors import RunError
from omr_runtime.models import Loaded, load
from omr_runtime.models.families import Layout, num_bytes
from omr_runtime.shortage import in_step
from omr_runtime.store import ImageStore
from omr_runtime.train.batching import PackedBatch, PackPlan, Sample, make_sample, steps_of
from omr_runtime.train.checkpoint import Checkpoints, default_interval, open_checkpoints
from omr_runtime.train.loop import Trainer, open_accelerator, starting_folder, where_to_load
from omr_runtime.train.losses import cross_entropy
from omr_runtime.train.metrics import RunLog
from omr_runtime.train.schedule import learning_rate
from omr_runtime.train.stopping import Stop, listening, stopped
from omr_runtime.work import Work, finish, read_rows
from omrlang.schema import Sft
from omrlang.settle import num_devices
from omrlang.types import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

TOO_LONG = "longer than pack"
OF_THE_BASE = ("config.json", "README.md")
CACHE_BYTES = 2 << 30
"""Pixels that are kept between epochs; beyond it images are read again."""


@dataclass(slots=True)
class Rows:
    """The input rows and, made when asked for, their token sequences."""

    rows: Sequence[dict[str, Any]]
    loaded: Loaded
    prompt: Prompt
    spec: Sft
    layout: Layout
    images: ImageStore
    _cache: dict[int, Sample] = field(default_factory=dict)
    _cached_bytes: int = 0

    def sample(self, i: int) -> Sample:
        """Row ``i`` as prompt and response tokens; the end token is learned too."""
        if i not in self._cache:
            sample = self._encode(self.rows[i])
            size = num_bytes(sample.images)
            if self._cached_bytes + size > CACHE_BYTES:
                return sample
            self._cache[i] = sample
            self._cached_bytes += size
        return self._cache[i]

    def _encode(self, row: dict[str, Any]) -> Sample:
        pictures: list[Image] = [self.images.open(digest) for digest in row["images"] or []]
        spec = self.spec
        made = chat.encode_prompt(
            self.loaded, row, self.prompt, pictures, spec.min_pixels, spec.max_pixels
        )
        response = chat.response_text(row, self.prompt)
        tokenizer = self.loaded.tokenizer
        ids = tokenizer(response, add_special_tokens=False)["input_ids"]
        return make_sample(
            row["id"],
            made.input_ids,
            [*ids, tokenizer.eos_token_id],
            self.layout,
            made.images,
        )

    def lengths(self, trainer: Trainer) -> list[int]:
        """Tokens of every row; each rank encodes its part."""
        mine = range(trainer.rank, len(self.rows), trainer.num_ranks)
        parts = trainer.gather([self.sample(i).num_tokens for i in mine])
        lengths = [0] * len(self.rows)
        for rank, part in enumerate(parts):
            lengths[rank :: trainer.num_ranks] = part
        return lengths


@dataclass(frozen=True, slots=True)
class Steps:
    """The rows of each optimiser step, by position, and what is left out as too long."""

    steps: Sequence[tuple[int, ...]]
    too_long: Sequence[int]


def plan_steps(ids: Sequence[str], lengths: Sequence[int], spec: Sft) -> Steps:
    """Which rows each step uses. A function of rows, lengths and settings alone, so that a resumed run goes on."""
    fitting = [i for i in range(len(ids)) if lengths[i] <= spec.pack]
    packs = PackPlan([ids[i] for i in fitting], [lengths[i] for i in fitting], spec.pack, spec.seed)
    units = packs.epoch_rows if spec.batch.unit == "rows" else packs.epoch_packs
    found = steps_of(units, batch_units(spec), spec.steps, spec.epochs)
    steps = [tuple(fitting[i] for i in step) for step in found]
    return Steps(steps, sorted(set(range(len(ids))) - set(fitting)))


def batch_units(spec: Sft) -> int:
    """Packs or rows of one optimiser step, over all processes."""
    per_process = spec.batch.unit == "packs / gpu"
    return round(spec.batch.value) * (num_devices(spec) if per_process else 1)


def train(work: Work) -> None:
    """Run the stage on this process."""
    spec = work.stage.spec
    assert isinstance(spec, Sft)
    trainer, loaded = _open(work, spec)
    log = RunLog(work, trainer, 0)
    rows = _rows(work, spec, loaded, trainer.layout)
    lengths = rows.lengths(trainer)
    plan = plan_steps([row["id"] for row in rows.rows], lengths, spec)
    if not plan.steps:
        raise RunError(
            f"{spec.name}: no row to train on ({len(plan.too_long)} of {len(lengths)} are {TOO_LONG})"
        )
    log.num_steps = len(plan.steps)
    model = Path(work.state) / "models" / work.stage.fingerprint
    checkpoints = open_checkpoints(work, trainer, spec)
    totals = checkpoints.finished(model)
    if totals is None:
        with listening(work, trainer) as stop:
            totals = _run(trainer, rows, lengths, plan, spec, log, checkpoints, stop)
        write = partial(_write_model, trainer, loaded.folder)
        checkpoints.finish(model, write, log.take(), totals)
    log.close()
    if trainer.is_main:
        finish(work, _summary(spec, totals, len(lengths)))
    checkpoints.close()
    trainer.leave()


def _open(work: Work, spec: Sft) -> tuple[Trainer, Loaded]:
    accelerator = open_accelerator(spec)
    folder = starting_folder(work, spec, accelerator)
    loaded = load(folder, spec.precision, where_to_load(accelerator, spec))
    assert loaded.model is not None, "weights were asked for"
    return Trainer(accelerator, loaded.model, spec, spec.loss.fused), loaded


def _rows(work: Work, spec: Sft, loaded: Loaded, layout: Layout) -> Rows:
    rows = list(read_rows(work.inputs))
    prompt = spec.prompt or _only_prompt(work, spec, rows)
    return Rows(rows, loaded, prompt, spec, layout, ImageStore(work.state))


def _only_prompt(work: Work, spec: Sft, rows: Sequence[dict[str, Any]]) -> Prompt:
    """The one prompt that the rows were sampled under. Rows that no stage sampled are taken as they are."""
    carried = sorted({row["prompt"] for row in rows if row["prompt"]})
    if not carried:
        return Prompt(name="none", thinking=None)
    known = {chat.prompt_label(prompt): prompt for prompt in work.prompts}
    if len(carried) > 1 or carried[0] not in known:
        names = ", ".join(label.partition(":")[0] for label in carried)
        raise RunError(
            f"{spec.name}: its rows were sampled under {names}; the setting `prompt` has to say which one to train under"
        )
    return known[carried[0]]


def _run(
    trainer: Trainer,
    rows: Rows,
    lengths: Sequence[int],
    plan: Steps,
    spec: Sft,
    log: RunLog,
    checkpoints: Checkpoints,
    stop: Stop,
) -> dict[str, Any]:
    """All steps that are still to do. Gives the totals of the run. Resumable where the ranks were asked to stop."""
    every = spec.checkpoint.every if spec.checkpoint else default_interval(len(plan.steps))
    totals = checkpoints.resume()
    if totals is None:
        totals = {"step": 0, "tokens": 0, "timed_tokens": 0, "seconds": 0.0}
        log.add("dropped", _dropped(rows, plan.too_long))
    first = totals["step"]
    for step in range(first, len(plan.steps)):
        with in_step(step + 1, len(plan.steps)):
            members = plan.steps[step]
            metrics = _step(trainer, rows, lengths, members, spec, step, len(plan.steps), stop)
        if metrics is None:
            if step > first and step % every:
                checkpoints.save(step, log.take(), totals)
            raise stopped(trainer, step, len(plan.steps))
        totals["step"], totals["loss"] = step + 1, metrics["loss"]
        totals["tokens"] += metrics["tokens"]
        if step > first or len(plan.steps) == 1:  # a process's first step also warms up
            totals["timed_tokens"] += metrics["tokens"]
            totals["seconds"] += metrics["tokens"] / metrics["tokens_per_s"]
        log.step(step + 1, metrics, (rows.rows[i]["id"] for i in plan.steps[step]))
        if (step + 1) % every == 0 and step + 1 < len(plan.steps):
            checkpoints.save(step + 1, log.take(), totals)
    return totals


def _dropped(rows: Rows, which: Sequence[int]) -> Iterator[dict[str, Any]]:
    for i in which:
        row = rows.rows[i]
        yield {"row": row["id"], "source": row["source"], "reason": TOO_LONG}


def _step(
    trainer: Trainer,
    rows: Rows,
    lengths: Sequence[int],
    members: Sequence[int],
    spec: Sft,
    step: int,
    num_steps: int,
    stop: Stop,
) -> dict[str, float] | None:
    """One optimiser step over the rows ``members``: its figures. None, and no step, where any rank was asked to stop: they
    learn of it with the counts that they exchange anyway."""
    start = time.perf_counter()
    mine = trainer.assign([lengths[i] for i in members], spec.micro_batch or spec.pack)
    batches = [trainer.pack([rows.sample(members[k]) for k in one]) for one in mine]
    counts = [sum(b.num_weighted for b in batches), sum(b.num_tokens for b in batches)]
    told = [*counts, trainer.cost.of(batches), float(stop.asked())]
    weighted, tokens, flops, asked = trainer.total(told)
    if asked:
        return None

    def loss_of(batch: PackedBatch, logp_N: Tensor, entropy_N: Tensor) -> Tensor:
        return cross_entropy(logp_N, batch.weight, weighted)

    lr = learning_rate(spec.lr, step, num_steps)
    loss, norm = trainer.step(batches, loss_of, lr)
    seconds = time.perf_counter() - start
    return {
        "loss": loss,
        "lr": lr,
        "grad_norm": norm,
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        **trainer.speed(flops, seconds),
    }


def _write_model(trainer: Trainer, base: Path, folder: Path) -> None:
    trainer.save_model(folder)
    if trainer.is_main:
        copy_companions(base, folder)


def copy_companions(base: Path, folder: Path) -> None:
    """What belongs to a model beside its weights and config: tokenizer, chat template, image processor. Not its card, which
    speaks of what it was trained on."""
    for path in base.iterdir():
        is_weights = path.suffix in {".safetensors", ".bin", ".gguf", ".pt"} or path.name.endswith(
            ".index.json"
        )
        if path.is_file() and not is_weights and path.name not in OF_THE_BASE:
            shutil.copyfile(path, folder / path.name)


def _summary(spec: Sft, totals: dict[str, Any], num_in: int) -> dict[str, Any]:
    name = spec.model.name if spec.model.kind == "model" else spec.model.stage
    seconds = totals["seconds"]
    rate = totals["timed_tokens"] / seconds if seconds else None
    metrics = {"loss": totals["loss"], "steps": totals["step"]}
    if rate is not None:
        metrics["tokens_per_s"] = rate
    return {
        "num_in": num_in,
        "tokens": int(totals["tokens"]),
        "rates": {} if rate is None else {f"sft/{name}/{num_devices(spec)}": rate},
        "metrics": metrics,
    }
