"""``filter NAME from ROWS on HARDWARE { keep = … }``: verification and near duplicates; every dropped row keeps its reason."""

from __future__ import annotations

from typing import Annotated, Literal

from omrlang.schema.stage import StageSpec
from omrlang.types import Amount, Clause, Hardware, Lit, Near, RowExpr, Setting, construct

EVERYTHING = construct(RowExpr, text="true", type="bool", tree=construct(Lit, value=True), rules=())
"""What a filter keeps that only caps or makes unique."""


class Filter(StageSpec):
    kind: Literal["filter"] = "filter"

    rows: Annotated[str, Clause("from", "rows", "the stage whose rows are judged")]
    hardware: Annotated[Hardware | None, Clause("on", "speed", "default this machine")] = None
    keep: Annotated[
        RowExpr,
        Setting(
            cls="rows",
            doc="what stays; the first top-level `and` operand that is false is the reason",
        ),
    ] = EVERYTHING
    unique: Annotated[
        Literal["none"] | Near,
        Setting(
            cls="rows",
            doc="near duplicates among the rows that `keep` lets through: one of each cluster stays",
        ),
    ] = "none"
    at_most: Annotated[
        Amount | None,
        Setting(
            cls="rows",
            units=("per parent",),
            ge=1,
            doc="`4 per parent`: of the samples of one question that are left only those with the lowest sha256(seed, id)",
        ),
    ] = None
