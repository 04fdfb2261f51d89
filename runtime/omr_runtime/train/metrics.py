"""What a training run says about itself: rows for the shards, TensorBoard events, the live line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omr_runtime.train.loop import Trainer
from omr_runtime.work import Progress, Work

LIVE = ("loss", "lr", "tokens_per_s", "reward", "response_tokens", "entropy")
"""The figures of the live line, where a run has them."""


class RunLog:
    """Holds what has not been published yet. Only the main process keeps and writes anything."""

    def __init__(self, work: Work, trainer: Trainer, num_steps: int) -> None:
        self.num_steps = num_steps
        self.is_main = trainer.is_main
        self.progress = Progress(work.progress)
        self.events = Path(work.state) / "logs" / work.stage.name / "tb"
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.writer: Any = None

    def add(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows of a shard's table, for the next publication."""
        if self.is_main:
            self.tables.setdefault(table, []).extend(dict(row) for row in rows)

    def step(self, step: int, metrics: Mapping[str, float], row_ids: Iterable[str]) -> None:
        """The figures of optimiser step ``step`` (from 1) and the rows that it used."""
        if not self.is_main:
            return
        self.figures(step, metrics)
        self.add("use", ({"row": id, "step": step} for id in row_ids))
        live = {name: metrics[name] for name in LIVE if name in metrics}
        self.progress.update(step, self.num_steps, "steps", **live)

    def figures(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step, into the lineage and the event files."""
        if not self.is_main:
            return
        self.add("metric", ({"step": step, "name": k, "value": v} for k, v in metrics.items()))
        for name, value in metrics.items():
            self._writer(step).add_scalar(name, value, step)

    def take(self) -> dict[str, list[dict[str, Any]]]:
        """All that was added since the last call."""
        taken, self.tables = self.tables, {}
        if self.writer is not None:
            self.writer.flush()
        return taken

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _writer(self, step: int) -> Any:
        """Opened at the first step; events of a killed run from that step on are made void."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.events), purge_step=step)
        return self.writer
