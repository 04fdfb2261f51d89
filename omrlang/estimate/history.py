"""The index becomes what an estimate can lean on: this stage's own record, its name's last one, the speed of a like stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omrlang.estimate.ranges import added, between, derive, exact
from omrlang.estimate.rows import Past
from omrlang.lower import Lowered
from omrlang.plan import Estimate
from omrlang.schema import Eval, Rl, Sample, Sft, Spec
from omrlang.state import Index, Probe, Record, old_spec
from omrlang.types import Model, TrainedModel

SPREAD = 1.25
"""Of a time scaled from another run on this machine."""


@dataclass(frozen=True, slots=True)
class Speed:
    """A finished or probed stage of the same kind, model, machine and engine: its tokens and seconds. ``start`` are the
    seconds before its first token, where they were measured apart; ``source`` is who published the speed, where it was not
    measured here."""

    name: str
    tokens: float
    seconds: float
    start: float = 0.0
    source: str = ""

    @property
    def said(self) -> str:
        if self.source:
            return f"published: {self.source}"
        return f"`{self.name}`: {self.tokens:,.0f} tokens in {self.seconds:,.1f} s"

    def scaled(self, tokens: Estimate) -> Estimate:
        """The time for another number of tokens, at the same speed."""
        speed = self.tokens / self.seconds
        rate = between(
            speed / SPREAD,
            speed,
            speed * SPREAD,
            "tokens/s",
            "calibrated",
            self.said,
        )
        work = derive(
            "s",
            "tokens / tokens a second of a like stage",
            lambda tokens, rate: tokens / rate,
            falling=["rate"],
            tokens=tokens,
            rate=rate,
        )
        if not self.start:
            return work
        start = exact(self.start, "s", "measured", f"start of `{self.name}`")
        return added("s", "start + work", {"start": start, "work": work})


def past(stage: Lowered, index: Index, recipe: Path) -> Past:
    """What is known of the stage and of its last version."""
    same = index.stages.get(stage.fingerprint)
    done = same if same is not None and same.status == "done" else None
    last = index.last(recipe, stage.name)
    earlier = index.stages.get(last) if last is not None else None
    partly = done is None and same is not None and same.num_rows
    return Past(done, same if partly else earlier, index.probes.get(stage.fingerprint))


def measured_seconds(record: Record) -> Estimate | None:
    """The time that the stage took."""
    return (
        None
        if record.seconds is None
        else exact(record.seconds, "s", "measured", "the stage's run")
    )


def speeds(index: Index) -> dict[str, Speed]:
    """For each class of finished stages the one with the most tokens, so that its start weighs least; else a probe's, else
    what was published."""
    found = {
        row.like: Speed(row.name, row.tokens_per_s, 1.0, source=row.source)
        for row in index.published.values()
        if row.tokens_per_s
    }
    found |= {probe.like: speed_of(probe) for probe in index.probes.values()}
    for fingerprint, record in index.stages.items():
        previous = index.previous.get(fingerprint)
        if record.status != "done" or not record.tokens or not record.seconds or previous is None:
            continue
        spec, root = old_spec(previous), _old_root(fingerprint, index)
        if not isinstance(spec, Sample | Sft | Rl | Eval) or root is None:
            continue
        key = like(spec, root)
        if key not in found or found[key].source or found[key].tokens < record.tokens:
            found[key] = Speed(record.name, record.tokens, record.seconds)
    return found


def like_stage(spec: Spec, root: Model | None, known: Mapping[str, Speed]) -> Speed | None:
    """The speed of a finished stage of the same class."""
    if not isinstance(spec, Sample | Sft | Rl | Eval) or root is None or not known:
        return None
    return known.get(like(spec, root))


def speed_of(probe: Probe) -> Speed:
    return Speed(probe.name, probe.tokens, probe.seconds, probe.start_seconds)


def _old_root(fingerprint: str, index: Index) -> Model | None:
    """The declared model that a stage of an earlier run started from."""
    for _ in range(64):
        previous = index.previous.get(fingerprint)
        spec = old_spec(previous) if previous is not None else None
        ref = getattr(spec, "model", None)
        if previous is None or not isinstance(ref, TrainedModel):
            return ref if isinstance(ref, Model) else None
        fingerprint = previous.parents.get(ref.stage, "")
    return None


def like(spec: Sample | Sft | Rl | Eval, root: Model) -> str:
    """What must be equal for a speed to carry over. Sampling and evaluation are the same work."""
    kind = "sample" if isinstance(spec, Sample | Eval) else spec.kind
    hardware = (
        spec.hardware.model_dump(include={"gpu", "count"}) if spec.hardware is not None else None
    )
    engine = getattr(spec, "engine", None) or root.engine
    training = (
        (spec.precision, spec.processes, spec.recompute) if isinstance(spec, Sft | Rl) else None
    )
    if isinstance(spec, Sft | Rl) and (spec.adapter is not None or spec.freeze):
        trained = spec.adapter.model_dump() if spec.adapter is not None else sorted(spec.freeze)
        training = (*(training or ()), trained)
    parts = [
        kind,
        root.source.model_dump(),
        root.precision,
        hardware,
        engine.model_dump() if engine else None,
        training,
    ]
    return json.dumps(parts, sort_keys=True, default=str)
