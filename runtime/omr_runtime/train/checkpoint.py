"""Checkpoints of a training run, and the shards that are published with them.

A shard's tables are first kept inside the checkpoint and published after it exists, so that a run that is killed
between the two publishes them when it resumes: no step is published twice or never.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from omr_runtime.errors import RunError
from omr_runtime.store import State
from omr_runtime.train.loop import Trainer
from omr_runtime.work import Shards, Work, write_atomic
from omrlang.schema.sft import Training

Tables: TypeAlias = Mapping[str, Sequence[dict[str, Any]]]

STATE = "training.json"
FINAL = "final"


LEAST_BETWEEN = 10
"""Steps between checkpoints, at the least, where no setting says otherwise: a checkpoint can take longer than a step."""


def default_interval(num_steps: int) -> int:
    """Steps between checkpoints without a setting: a tenth of the run, and a run of few steps writes none on its way."""
    return max(LEAST_BETWEEN, math.ceil(num_steps / 10))


def open_checkpoints(work: Work, trainer: Trainer, spec: Training) -> Checkpoints:
    """The checkpoints of a stage, under what its recipe says of them."""
    folder = State(Path(work.state)).checkpoints(work.stage.fingerprint)
    keep = spec.checkpoint.keep if spec.checkpoint else 1
    return Checkpoints(trainer, folder, Path(work.out), keep)


class Checkpoints:
    """``folder/step-000100/`` each, the newest ``keep`` of them; ``out`` is where shards are published."""

    def __init__(
        self, trainer: Trainer, folder: Path, out: Path, keep: int | Literal["all"]
    ) -> None:
        self.trainer = trainer
        self.folder = folder
        self.out = Shards(out)
        self.keep = keep
        self.num_published = 0

    # ---- going on ----------------------------------------------------------------------------------------------

    def resume(self, also: Callable[[Path], None] | None = None) -> dict[str, Any] | None:
        """Load the newest checkpoint, publish its shard if that is missing, and give its ``extra`` with ``step``; None at
        the start of a run. ``also`` reads what ``save`` was given to write."""
        newest = self._newest()
        if newest is None:
            return None
        state = json.loads((newest / STATE).read_text())
        self._check_format(newest, state["format"])
        self.trainer.load_state(newest)
        if also is not None:
            also(newest)
        if self.trainer.is_main:
            self._publish(newest)
        self.trainer.wait()
        self.num_published = int(state["shard"]) + 1
        return {**state["extra"], "step": state["step"]}

    def _newest(self) -> Path | None:
        found = sorted(path.parent for path in self.folder.glob(f"step-*/{STATE}"))
        return found[-1] if found else None

    def _check_format(self, path: Path, written: str) -> None:
        mine = self.trainer.state_format()
        if written != mine:
            raise RunError(
                f"{path}: written under sharding {written}, the run is {mine}; "
                "set `sharding` and `processes` back, or remove the folder to train from the start"
            )

    # ---- writing -----------------------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        tables: Tables,
        extra: dict[str, Any] | None = None,
        also: Callable[[Path], None] | None = None,
    ) -> None:
        """Write the state after ``step`` steps, then publish ``tables`` (the main process's) as the next shard. ``also`` writes
        what else each rank has into the checkpoint's folder.

        Every rank must call it.
        """
        beside = self.folder / f".step-{step:06d}"
        self._fresh(beside)
        if also is not None:
            also(beside)
        self.trainer.save_state(beside)
        if self.trainer.is_main:
            final = self.folder / f"step-{step:06d}"
            self._seal(beside, final, step, tables, extra or {})
            self._publish(final)
            self._drop_old()
        self.num_published += 1
        self.trainer.wait()

    def _fresh(self, folder: Path) -> None:
        if self.trainer.is_main:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.trainer.wait()

    def _seal(
        self, beside: Path, final: Path, step: int, tables: Tables, extra: dict[str, Any]
    ) -> None:
        Shards(beside / "shard").write(self.num_published, dict(tables))
        state = {
            "step": step,
            "shard": self.num_published,
            "format": self.trainer.state_format(),
            "extra": extra,
        }
        write_atomic(beside / STATE, json.dumps(state).encode())
        shutil.rmtree(final, ignore_errors=True)
        beside.rename(final)

    def _publish(self, checkpoint: Path) -> None:
        there = {shard.number for shard in self.out.read()}
        for shard in Shards(checkpoint / "shard").read():
            if shard.number not in there:
                self.out.write(
                    shard.number, {name: _table(path) for name, path in shard.files.items()}
                )

    def _drop_old(self, newer: int = 0) -> None:
        """All but the newest, of which ``newer`` are no checkpoints."""
        if self.keep == "all":
            return
        found = sorted(self.folder.glob("step-*"))
        for old in found[: max(0, len(found) - self.keep + newer)]:
            shutil.rmtree(old, ignore_errors=True)

    # ---- the end -----------------------------------------------------------------------------------------------

    def finish(self, model: Path, write_model: Any, tables: Tables, extra: dict[str, Any]) -> None:
        """Write the final model by ``write_model(folder)`` (every rank), put it at ``model``, publish the last shard."""
        beside = model.with_name(f".{model.name}")
        self._fresh(beside)
        write_model(beside)
        if self.trainer.is_main:
            self._seal_final(tables, extra)
            shutil.rmtree(model, ignore_errors=True)
            beside.rename(model)
            self._publish(self.folder / FINAL)
        self.trainer.wait()

    def _seal_final(self, tables: Tables, extra: dict[str, Any]) -> None:
        final = self.folder / FINAL
        beside = self.folder / f".{FINAL}"
        for folder in (beside, final):
            shutil.rmtree(folder, ignore_errors=True)
        Shards(beside / "shard").write(self.num_published, dict(tables))
        write_atomic(beside / STATE, json.dumps({"extra": extra}).encode())
        beside.rename(final)

    def finished(self, model: Path) -> dict[str, Any] | None:
        """The ``extra`` of a run whose model stands at ``model`` already; its last shard is published if missing."""
        final = self.folder / FINAL / STATE
        if not final.exists() or not (model / "config.json").exists():
            return None
        if self.trainer.is_main:
            self._publish(self.folder / FINAL)
        self.trainer.wait()
        extra: dict[str, Any] = json.loads(final.read_text())["extra"]
        return extra

    def close(self) -> None:
        """Once the stage is done its model is the newest of what stays, so one checkpoint fewer is kept beside it."""
        if not self.trainer.is_main:
            return
        self._drop_old(newer=1)
        for folder in (*self.folder.glob(".*"), self.folder / FINAL):
            shutil.rmtree(folder, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _table(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path)
