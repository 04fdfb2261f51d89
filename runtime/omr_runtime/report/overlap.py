"""Two finished row sets to the rows that they share and that one has alone, by source, with the rules that made them differ."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from omr_runtime import lineage
from omr_runtime.report import queries
from omr_runtime.report.ran import Ran

NOT_BEFORE = "not among the rows that come to it"
NOT_DRAWN = "not sampled"


@dataclass(slots=True)
class Shared:
    """Rows of one source; the reasons count why a row of one side is not on the other."""

    common: int = 0
    only_a: int = 0
    only_b: int = 0
    why_not_b: dict[str, int] = field(default_factory=dict)
    why_not_a: dict[str, int] = field(default_factory=dict)


def overlap(a: Ran, b: Ran, stage_a: str, stage_b: str) -> dict[str, Shared]:
    """By source. Empty where one of the two is not finished. RunError where there is no lineage."""
    if not (a.is_done(stage_a) and b.is_done(stage_b)) or a.state.lineage != b.state.lineage:
        return {}
    one, other = a.plan.stage(stage_a), b.plan.stage(stage_b)
    found: dict[str, Shared] = defaultdict(Shared)
    with lineage.read(a.state.lineage) as reader:
        for line in queries.common_rows(reader, one.fingerprint, other.fingerprint):
            found[line["source"]].common = line["num"]
        for mine, theirs, run, is_a in ((one, other, b, True), (other, one, a, False)):
            names = [stage.fingerprint for stage in run.plan.stages]
            rows = queries.rows_of_one(reader, mine.fingerprint, theirs.fingerprint, names)
            for line in rows:
                shared = found[line["source"]]
                missing = NOT_DRAWN if mine.spec.kind == "sample" else NOT_BEFORE
                reasons = shared.why_not_b if is_a else shared.why_not_a
                reasons[line["reason"] or missing] = line["num"]
                if is_a:
                    shared.only_a += line["num"]
                else:
                    shared.only_b += line["num"]
    return dict(found)
