"""What a run commits: shards to the lineage, one transaction each time, then the index that plans read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omr_runtime import lineage
from omr_runtime.errors import RunError
from omr_runtime.order import row_sets
from omr_runtime.store import State, write_index
from omr_runtime.work import Shards, write_atomic
from omrlang.plan import Plan, PlanStage


class Record:
    """The lineage and the index of one run. ``index`` is what ``index.json`` holds."""

    def __init__(self, state: State, run: str, index: dict[str, Any]) -> None:
        self.state = state
        self.run = run
        self.index = index
        self.committed: dict[str, set[int]] = {}
        self.seconds_before: dict[str, float] = {}

    # ---- questions

    def is_done(self, fingerprint: str) -> bool:
        entry = self.index["stages"].get(fingerprint, {})
        return bool(entry.get("status") == "done" and entry.get("files_ok", True))

    def knows(self, fingerprint: str) -> bool:
        """Whether anything of this artifact was ever committed."""
        return fingerprint in self.index["stages"]

    def must_start_over(self, stage: PlanStage) -> bool:
        """Whether what lies in the store for this stage cannot be gone on from."""
        entry = self.index["stages"].get(stage.fingerprint, {})
        whole = Shards(self.state.artifact(stage.fingerprint)).is_intact()
        return not entry.get("files_ok", True) or not whole

    # ---- the run

    def start(self, plan: Plan, todo: Sequence[PlanStage]) -> None:
        """Names in the index; if it will execute anything, the run and its estimates in the lineage and its plan beside."""
        before = json.dumps(self.index, sort_keys=True)
        self._name(plan)
        named = set(self.index["names"].values())
        self.index["previous"] = {
            fp: was for fp, was in self.index["previous"].items() if fp in named
        }
        if json.dumps(self.index, sort_keys=True) != before:
            write_index(self.state, self.index)
        if todo:
            write_atomic(self.state.plans / f"{self.run}.json", plan.model_dump_json().encode())
            with lineage.write(self.state.lineage, self.run) as writer:
                writer.start_run(socket.gethostname(), os.getpid(), plan.recipe, plan.omr_version)
                for stage in todo:
                    _add_estimates(writer, stage)

    def _name(self, plan: Plan) -> None:
        """What this recipe's stages are called and made of now. A stage that is left out keeps what it was."""
        start = f"{Path(plan.recipe).resolve()}::"
        here = {f"{start}{stage.name}" for stage in plan.stages}
        self.index["names"] = {
            key: mark
            for key, mark in self.index["names"].items()
            if key in here or not key.startswith(start)
        }
        for stage in plan.stages:
            if stage.selected or stage.action == "cached":
                self.index["names"][f"{start}{stage.name}"] = stage.fingerprint
                self.index["previous"][stage.fingerprint] = _made_of(stage, plan)

    def end(self, exit_code: int, executed: Sequence[str]) -> None:
        with lineage.write(self.state.lineage, self.run) as writer:
            writer.end_run(exit_code, executed)

    # ---- stages

    def commit(self, stage: PlanStage, shards: Shards, seconds: float) -> None:
        """Take over the shards that were not yet; nothing is opened when there is none. While somebody reads the lineage
        they wait for the next commit."""
        if shards.numbers() - self.committed.get(stage.fingerprint, set()):
            with contextlib.suppress(lineage.Busy):
                self._write(stage, shards, seconds, "partial", {}, patience_s=1.0)

    def finish(self, stage: PlanStage, plan: Plan, seconds: float) -> dict[str, Any]:
        """The last shards and the row that says finished, in one transaction; then the index."""
        shards = Shards(self.state.artifact(stage.fingerprint))
        summary = json.loads((shards.folder / "done.json").read_text())
        counted = _count_shards(shards)
        entry = {**counted, **summary}
        entry["num_in"] = _num_in(stage, plan, self.index, entry)
        trains = stage.spec.kind in ("sft", "rl")
        entry["num_kept"] = (
            entry["num_in"] - entry["num_dropped"] if trains else counted["num_rows"]
        )
        _check_sum(stage, entry)
        summary |= {"num_in": entry["num_in"], "num_kept": entry["num_kept"]}
        self._write(stage, shards, seconds, "done", summary)
        finished: dict[str, Any] = self.index["stages"][stage.fingerprint]
        return finished

    def stop(self, stage: PlanStage, seconds: float, status: str) -> None:
        """What a stage that did not finish leaves committed."""
        self._write(stage, Shards(self.state.artifact(stage.fingerprint)), seconds, status, {})

    def forget(self, fingerprint: str) -> None:
        if self.state.lineage.exists():
            with lineage.write(self.state.lineage, self.run) as writer:
                writer.forget_stage(fingerprint)
        self.committed.pop(fingerprint, None)
        self.index["stages"].pop(fingerprint, None)
        write_index(self.state, self.index)

    def damaged(self, path: Path) -> None:
        """A worker found a file of an artifact damaged: the next plan makes that artifact again."""
        entry = self.index["stages"].get(path.parent.name)
        if entry is not None:
            entry["files_ok"] = False
            write_index(self.state, self.index)

    def catch_up(self) -> bool:
        """Bring the index up to the lineage after a run that was killed; whether anything moved."""
        moved = False
        with lineage.read(self.state.lineage) as reader:
            for stage in reader.stages():
                entry = self.index["stages"].get(stage["fingerprint"], {})
                counts = reader.counts(stage["fingerprint"])
                if (
                    entry.get("status") != stage["status"]
                    or entry.get("num_shards") != counts.num_shards
                ):
                    summary = json.loads(stage["summary"])
                    self._set_entry(
                        stage["fingerprint"],
                        stage["name"],
                        stage["kind"],
                        stage["status"],
                        stage["seconds"],
                        summary,
                        counts,
                    )
                    moved = True
        return moved

    def _write(
        self,
        stage: PlanStage,
        shards: Shards,
        seconds: float,
        status: str,
        summary: dict[str, Any],
        patience_s: float = lineage.COMMIT_PATIENCE_S,
    ) -> None:
        """One transaction over all that is new, then the index."""
        fingerprint = stage.fingerprint
        known = self.committed.setdefault(fingerprint, set())
        entry = self.index["stages"].get(fingerprint, {})
        seconds += self.seconds_before.setdefault(fingerprint, float(entry.get("seconds", 0.0)))
        new = [shard for shard in shards.read() if shard.number not in known]
        with lineage.write(self.state.lineage, self.run, patience_s) as writer:
            writer.start_stage(
                fingerprint,
                stage.name,
                stage.spec.kind,
                stage.spec.model_dump_json(),
                stage.parents,
                stage.revision,
            )
            for shard in new:
                writer.add_shard(fingerprint, shard)
            counts = writer.counts(fingerprint)
            if status == "done":
                writer.sort_edges(fingerprint)
                _add_actuals(writer, stage, counts, seconds, summary.get("peak_bytes"))
            writer.end_stage(fingerprint, status, seconds, summary)
        known.update(shard.number for shard in new)
        self._set_entry(fingerprint, stage.name, stage.spec.kind, status, seconds, summary, counts)
        write_index(self.state, self.index)

    def _set_entry(
        self,
        fingerprint: str,
        name: str,
        kind: str,
        status: str,
        seconds: float,
        summary: dict[str, Any],
        counts: lineage.Counts,
    ) -> None:
        entry = {
            "name": name,
            "kind": kind,
            "status": status,
            "num_rows": counts.num_rows,
            "num_dropped": counts.num_dropped,
            "rows_by_source": counts.rows_by_source,
            "by_reason": counts.by_reason,
            "mean_response_tokens": counts.mean_tokens,
            "tokens": counts.num_tokens,
            "seconds": seconds,
            "num_shards": counts.num_shards,
            "steps_done": counts.steps_done,
            "files_ok": True,
            "updated": lineage.now(),
        }
        self.index["stages"][fingerprint] = entry | {
            key: value for key, value in summary.items() if value is not None
        }
        self.index["rates"].update(summary.get("rates", {}))


def _made_of(stage: PlanStage, plan: Plan) -> dict[str, Any]:
    """What a later plan compares with, to say what moved."""
    return {
        "spec": stage.spec.model_dump(mode="json"),
        "parents": {name: plan.stage(name).fingerprint for name in stage.parents},
        "revision": stage.revision,
        "pins": {
            pin.what: pin.revision for pin in plan.pins if stage.name in pin.stages and pin.revision
        },
    }


def _count_shards(shards: Shards) -> dict[str, int]:
    found = shards.read()
    return {
        "num_rows": sum(shard.num_rows.get("row", 0) for shard in found),
        "num_dropped": sum(shard.num_rows.get("dropped", 0) for shard in found),
    }


def _num_in(stage: PlanStage, plan: Plan, index: dict[str, Any], entry: dict[str, Any]) -> int:
    """Rows that came in: what a worker says, else what its inputs hold, ``n`` times where each gives ``n``."""
    if "num_in" in entry:
        return int(entry["num_in"])
    if stage.spec.kind == "source":
        return int(entry["num_rows"]) + int(entry["num_dropped"])
    rows = sum(
        index["stages"][plan.stage(name).fingerprint]["num_rows"] for name in row_sets(stage.spec)
    )
    return int(rows) * int(getattr(stage.spec, "n", 1))


def _check_sum(stage: PlanStage, entry: dict[str, Any]) -> None:
    """in = kept + dropped holds for every stage, or a stage is wrong and nothing after it can be trusted."""
    if entry["num_in"] != entry["num_kept"] + entry["num_dropped"]:
        raise RunError(
            f"{stage.address}: {entry['num_in']:,} rows came in, but {entry['num_kept']:,} were kept and "
            f"{entry['num_dropped']:,} dropped; this is a defect of the stage"
        )


def _add_estimates(writer: lineage.Writer, stage: PlanStage) -> None:
    if stage.costs is None:
        return
    costs = stage.costs
    planned = {"rows_out": costs.rows_out, "tokens": costs.tokens, "seconds": costs.seconds}
    if costs.memory is not None:
        planned["memory"] = costs.memory.total
    for metric, found in planned.items():
        writer.add_estimate(
            stage.fingerprint, metric, [found.lo, found.mid, found.hi, found.unit, found.origin]
        )


def _add_actuals(
    writer: lineage.Writer,
    stage: PlanStage,
    counts: lineage.Counts,
    seconds: float,
    peak: float | None,
) -> None:
    """In the units of the estimates: a training stage has no rows of its own, but learned from some."""
    rows, tokens = counts.num_rows, counts.num_tokens
    if stage.spec.kind in ("sft", "rl"):
        rows, tokens = writer.trained_on(stage.fingerprint)
    for metric, value in (("rows_out", rows), ("tokens", tokens), ("seconds", seconds)):
        writer.add_actual(stage.fingerprint, metric, value)
    if peak is not None and stage.costs is not None and stage.costs.memory is not None:
        writer.add_actual(stage.fingerprint, "memory", peak)
