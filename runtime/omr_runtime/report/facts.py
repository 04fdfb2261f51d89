"""What ran to the facts of its report: text and numbers, nothing drawn, nothing escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from omr_runtime import lineage
from omr_runtime.lineage import Reader
from omr_runtime.report import queries
from omr_runtime.report.comparison import Versus, versus
from omr_runtime.report.examples import Example, examples
from omr_runtime.report.ran import Ran
from omr_runtime.report.tournament import Line, Tournament, tournament
from omrlang.plan import PlanStage

CURVES = {
    "reward": "reward",
    "entropy": "entropy, nats",
    "response_tokens": "response tokens",
    "loss": "loss",
    "clip_fraction": "share of clipped ratios",
    "kl": "KL to the reference",
    "rollout_kl": "KL between sampler and trainer",
    "rollout_weight": "weight of the sampler's tokens",
    "rollout_weight_capped": "share of weights at the cap",
    "carried_tokens": "tokens drawn by older weights",
    "left_tokens": "tokens drawn and left out",
    "grad_norm": "gradient norm",
    "zero_variance_groups": "groups without spread",
    "length_stops": "share cut by length",
    "lr": "learning rate",
    "tokens_per_s": "tokens a second",
    "tflops": "model TFLOP/s of a process",
    "mfu": "model FLOPs utilisation",
    "push_s": "seconds to give the engine weights",
    "rollout_s": "seconds to draw and score",
    "reward_s": "seconds of these that wait for scores",
    "update_s": "seconds to learn",
    "wait_s": "seconds of waiting for the next rollouts",
    "step_s": "seconds of a step",
}
"""Figures of training and what they count, the most telling first; others follow by name."""
FIRST = 6
"""So many curves stand open."""


@dataclass(frozen=True, slots=True)
class Drop:
    reason: str
    num: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """``num_in`` = ``num_kept`` + all drops."""

    stage: str
    kind: str
    num_in: int
    num_kept: int
    drops: tuple[Drop, ...]
    by_source: tuple[tuple[str, int, int], ...]
    """Source, kept, dropped."""


@dataclass(frozen=True, slots=True)
class SourceShare:
    source: str
    rows: int
    questions: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Mixed:
    """A row set by source; ``num_rows`` of all."""

    stage: str
    kind: str
    num_rows: int
    sources: tuple[SourceShare, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def last_mean(self) -> float:
        """Over the last tenth of the steps."""
        return fmean(self.values[-max(1, len(self.values) // 10) :])


@dataclass(frozen=True, slots=True)
class Trained:
    stage: str
    kind: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Guess:
    """An estimate beside what came of it."""

    stage: str
    metric: str
    unit: str
    lo: float
    mid: float
    hi: float
    origin: str
    actual: float

    @property
    def inside(self) -> bool:
        """A thousandth outside is rounding."""
        return self.lo * 0.999 <= self.actual <= self.hi * 1.001


@dataclass(frozen=True, slots=True)
class Facts:
    """``runs`` are those that made anything of it: id, start, end, exit code."""

    ran: Ran
    runs: tuple[tuple[str, str, str | None, int | None], ...]
    funnels: tuple[Funnel, ...]
    mixes: tuple[Mixed, ...]
    trained: tuple[Trained, ...]
    tournament: Tournament
    versus: tuple[Versus, ...]
    guesses: tuple[Guess, ...]
    examples: tuple[Example, ...]


def gather(ran: Ran, others: Sequence[Line] = ()) -> Facts:
    """Read the index and the lineage once; ``others`` are lines for the tournament. RunError where there is no lineage."""
    done = [stage for stage in ran.plan.stages if ran.is_done(stage.name)]
    with lineage.read(ran.state.lineage) as reader:
        runs = tuple(_runs(ran, reader))
        funnels = tuple(_funnel(ran, reader, stage) for stage in done)
        mixes = tuple(
            _mixed(reader, stage) for stage in done if stage.spec.kind in ("mix", "filter")
        )
        curves = tuple(trained(reader, stage) for stage in done if stage.spec.kind in ("sft", "rl"))
        guesses = tuple(_guesses(reader, done))
    return Facts(
        ran=ran,
        runs=runs,
        funnels=funnels,
        mixes=mixes,
        trained=curves,
        tournament=tournament(ran, others),
        versus=versus(ran),
        guesses=guesses,
        examples=examples(ran),
    )


def _runs(ran: Ran, reader: Reader) -> Iterator[tuple[str, str, str | None, int | None]]:
    """Runs that executed a stage of this plan last."""
    marks = {stage.fingerprint for stage in ran.plan.stages}
    used = {stage["run"] for stage in reader.stages() if stage["fingerprint"] in marks}
    for run in reader.runs():
        if run["id"] in used:
            yield run["id"], run["started"], run["ended"], run["exit_code"]


def _funnel(ran: Ran, reader: Reader, stage: PlanStage) -> Funnel:
    entry = ran.entries[stage.name]
    drops: dict[str, int] = {}
    by_source: dict[str, list[int]] = {}
    for line in reader.funnel(stage.fingerprint):
        of = by_source.setdefault(line["source"] or "", [0, 0])
        of[line["reason"] is not None] += line["num"]
        if line["reason"] is not None:
            drops[line["reason"]] = drops.get(line["reason"], 0) + line["num"]
    return Funnel(
        stage.name,
        stage.spec.kind,
        int(entry.get("num_in") or 0),
        int(entry.get("num_kept") or 0),
        tuple(Drop(why, num) for why, num in sorted(drops.items(), key=lambda item: -item[1])),
        tuple((source, kept, dropped) for source, (kept, dropped) in by_source.items()),
    )


def _mixed(reader: Reader, stage: PlanStage) -> Mixed:
    found = queries.diversity(reader, stage.fingerprint)
    shares = tuple(SourceShare(**line) for line in found)
    return Mixed(stage.name, stage.spec.kind, sum(share.rows for share in shares), shares)


def trained(reader: Reader, stage: PlanStage) -> Trained:
    points: dict[str, list[tuple[float, float]]] = {}
    for line in reader.metrics(stage.fingerprint):
        if line["step"] is not None and line["value"] is not None:
            points.setdefault(line["name"], []).append((line["step"], line["value"]))
    order = [*(name for name in CURVES if name in points), *(n for n in points if n not in CURVES)]
    curves = tuple(
        Curve(name, CURVES.get(name, name), *_columns(points[name]))
        for name in order
        if len(points[name]) > 1
    )
    return Trained(stage.name, stage.spec.kind, curves)


def _columns(points: list[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(step for step, _ in points), tuple(value for _, value in points)


def _guesses(reader: Reader, stages: list[PlanStage]) -> Iterator[Guess]:
    """Those that were made; tokens only of stages that write or train on some."""
    names = {stage.fingerprint: stage for stage in stages}
    latest = {
        (line["stage"], line["metric"]): line
        for line in queries.estimated_and_actual(reader)
        if line["stage"] in names and line["mid"]
    }
    for stage in stages:
        for metric in ("rows_out", "tokens", "seconds"):
            line = latest.get((stage.fingerprint, metric))
            if line is not None:
                yield Guess(
                    stage.name,
                    metric.replace("_out", ""),
                    line["unit"],
                    line["lo"],
                    line["mid"],
                    line["hi"],
                    line["origin"],
                    line["value"],
                )
