"""``mix NAME from [a: amount, …] { … }``: the diversity of the data."""

from __future__ import annotations

from typing import Annotated, Literal

from omrlang.schema.stage import StageSpec
from omrlang.types import Clause, MixPart, Near, Setting, Share


class Mix(StageSpec):
    kind: Literal["mix"] = "mix"

    parts: Annotated[tuple[MixPart, ...], Clause("from", "rows", "row sets with their amounts")]
    total: Annotated[
        int | None,
        Setting(cls="rows", unit="rows", ge=1, doc="how many rows the shares are shares of"),
    ] = None
    unique: Annotated[
        Literal["exact", "none"] | Near,
        Setting(
            cls="rows",
            doc="exact: of rows with the same content and response the first in the order of the parts stays; "
            "near: near duplicates go before amounts are taken, whichever part they are in",
        ),
    ] = "exact"
    shuffle: Annotated[
        bool, Setting(cls="rows", doc="order by sha256(seed, id); otherwise part after part")
    ] = True

    def share_rows(self) -> tuple[int, ...]:
        """Rows of each part by its share, 0 where it has none; rounded so that they add up to the total."""
        rows, sum_of_shares, before = [], 0.0, 0
        for part in self.parts:
            sum_of_shares += part.amount.fraction if isinstance(part.amount, Share) else 0.0
            upto = round((self.total or 0) * sum_of_shares)
            rows.append(upto - before)
            before = upto
        return tuple(rows)
