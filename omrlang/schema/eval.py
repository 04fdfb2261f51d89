"""``eval NAME from [a, b] with MODEL on HARDWARE { … }``: the tournament; every answer a row."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from omrlang.schema.sample import Decoding
from omrlang.types import Aggregate, Clause, Hardware, ModelRef, Prompt, RowExpr, Setting


class Eval(Decoding):
    kind: Literal["eval"] = "eval"

    rows: Annotated[tuple[str, ...], Clause("from", "rows", "benchmarks or row sets")]
    model: Annotated[ModelRef, Clause("with", "rows", "whose answers are scored")]
    hardware: Annotated[Hardware | None, Clause("on", "speed", "default this machine")] = None
    prompt: Annotated[Prompt, Setting(cls="rows", doc="system prompt and reasoning format")]
    max_tokens: Annotated[int, Setting(cls="rows", unit="tokens", ge=1, doc="longest response")]
    n: Annotated[int, Setting(cls="rows", ge=1, doc="answers for each row, averaged")] = 1
    score: Annotated[
        RowExpr | None,
        Setting(
            cls="rows",
            doc="what counts as right, a predicate or a number in 0 .. 1; default answer_matches",
        ),
    ] = None
    aggregate: Annotated[
        Aggregate | None,
        Setting(
            cls="rows",
            doc="how scores become a benchmark's accuracy: `mean` over answers, `majority` of each question's `n`, `worst(by = variant)` of each problem, or `chains(…)` of steps; default what the benchmark says, else `mean`",
        ),
    ] = None
    own_aggregates: dict[str, Aggregate] = Field(
        default={},
        description="where `aggregate` is not given: what row sets of `from` say that is not the mean; "
        "their fingerprints hold it",
    )

    def aggregate_of(self, rows: str) -> Aggregate:
        """How the scores of one row set become its accuracy."""
        return self.aggregate or self.own_aggregates.get(rows, "mean")
