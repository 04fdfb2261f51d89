"""``filter NAME from ROWS on HARDWARE { keep = … }``: verification; every dropped row keeps its reason."""

from __future__ import annotations

from typing import Annotated, Literal

from omrlang.schema.stage import StageSpec
from omrlang.types import Amount, Clause, Hardware, RowExpr, Setting


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
    ]
    at_most: Annotated[
        Amount | None,
        Setting(
            cls="rows",
            units=("per parent",),
            ge=1,
            doc="`4 per parent`: of the kept samples of one question only those with the lowest sha256(seed, id)",
        ),
    ] = None
