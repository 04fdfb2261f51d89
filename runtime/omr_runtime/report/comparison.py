"""Finished evals to who did better on the same items, pair by pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from omr_runtime import lineage
from omr_runtime.lineage import Reader
from omr_runtime.report import queries
from omr_runtime.report.ran import Ran
from omr_runtime.stages.eval import default_score
from omr_runtime.verify.paired import Paired, Scores, paired
from omrlang.plan import PlanStage
from omrlang.schema import Eval


@dataclass(frozen=True, slots=True)
class Versus:
    """Names of two evals, and how B did against A on the questions that both asked."""

    a: str
    b: str
    found: Paired


def versus(ran: Ran) -> tuple[Versus, ...]:
    """Each pair of evals with common questions, in the recipe's order. RunError where there is no lineage."""
    with lineage.read(ran.state.lineage) as reader:
        scores = {stage.name: scores_of(reader, stage) for stage in ran.evals}
    return tuple(_pairs(list(scores), scores))


def across(one: Ran, other: Ran) -> tuple[Versus, ...]:
    """Evals of the same name in two runs: how ``other`` did against ``one``."""
    both = [(a, b) for a in one.evals for b in other.evals if a.name == b.name]
    found = []
    for a, b in both:
        with lineage.read(one.state.lineage) as reader:
            of_a = scores_of(reader, a)
        with lineage.read(other.state.lineage) as reader:
            made = paired(of_a, scores_of(reader, b))
        if made is not None:
            found.append(Versus(a.name, b.name, made))
    return tuple(found)


def score_rule(stage: PlanStage) -> str:
    """The rule whose verdict is what an answer counts."""
    assert isinstance(stage.spec, Eval), "only evals are asked for"
    return (stage.spec.score or default_score()).text


def scores_of(reader: Reader, stage: PlanStage) -> Scores:
    """By the content of the question the scores of its answers."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in queries.scores(reader, stage.fingerprint, score_rule(stage)):
        found[line["content"]].append(line["score"])
    return found


def _pairs(names: Sequence[str], scores: dict[str, Scores]) -> Iterator[Versus]:
    for a, b in combinations(names, 2):
        found = paired(scores[a], scores[b])
        if found is not None:
            yield Versus(a, b, found)
