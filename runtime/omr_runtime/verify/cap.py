"""``at_most = N per parent`` and rows to those that are over the cap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from omr_runtime.identity import order_key
from omr_runtime.verify.cascade import Verdict
from omr_runtime.verify.interpret import Row


@dataclass(frozen=True, slots=True)
class Cap:
    """Of a group's rows that pass, those with the lowest sha256(seed, id) stay."""

    limit: int
    seed: int

    @property
    def text(self) -> str:
        return f"at_most = {self.limit} per parent"

    def key(self, row: str) -> str:
        return order_key(self.seed, "at_most", row)

    def verdict(self, row: str, over: bool) -> Verdict:
        return {"row": row, "rule": self.text, "ok": not over, "reason": None, "score": None}

    def over(self, rows: Iterable[Row]) -> set[str]:
        """Ids of rows over the cap, where nothing is undecided."""
        groups: dict[str, list[str]] = {}
        for row in rows:
            groups.setdefault(group_of_parent(row), []).append(row["id"])
        return {
            row for group in groups.values() for row in sorted(group, key=self.key)[self.limit :]
        }


def group_of_parent(row: Row) -> str:
    return str(row["parent"] or row["id"])
