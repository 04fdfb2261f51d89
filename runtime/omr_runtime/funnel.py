"""The lineage of a stage to its funnel: what came in, what was kept, what was dropped and why, by source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from omr_runtime import lineage
from omr_runtime.store import State
from omr_runtime.story import find_stage


@dataclass(frozen=True, slots=True)
class Funnel:
    """``lines``: source, reason (None: kept) and number of rows."""

    address: str
    num_in: int | None
    num_kept: int
    num_dropped: int
    lines: tuple[tuple[str | None, str | None, int], ...]

    @property
    def adds_up(self) -> bool:
        return self.num_in is None or self.num_in == self.num_kept + self.num_dropped

    def as_json(self) -> str:
        return json.dumps(asdict(self) | {"adds_up": self.adds_up}, ensure_ascii=False)

    def text(self) -> str:
        """The sum first, then each source with its reasons."""
        came = "not finished" if self.num_in is None else f"{self.num_in:,} in"
        sign = "=" if self.adds_up else "≠"
        lines = [
            f"{self.address}: {came} {sign} {self.num_kept:,} kept + {self.num_dropped:,} dropped"
        ]
        for source in dict.fromkeys(source for source, _, _ in self.lines):
            of = [(reason, num) for s, reason, num in self.lines if s == source]
            lines.append(f"\n{source or 'without a source'}: {sum(num for _, num in of):,}")
            lines += [
                f"  {num:>10,}  {'kept' if reason is None else f'dropped: {reason}'}"
                for reason, num in of
            ]
        return "\n".join(lines)


def count(folder: Path, stage: str) -> Funnel:
    """Counts by source and reason; a training stage keeps what it does not drop."""
    state = State(folder)
    mark, entry = find_stage(state, stage)
    with lineage.read(state.lineage) as reader:
        lines = [(line["source"], line["reason"], line["num"]) for line in reader.funnel(mark)]
    dropped = sum(num for _, reason, num in lines if reason is not None)
    kept = sum(num for _, reason, num in lines if reason is None)
    if entry["kind"] in ("sft", "rl"):
        kept = entry.get("num_kept", 0)
        lines.insert(0, (None, None, kept))
    return Funnel(
        f"{entry['kind']}.{entry['name']}", entry.get("num_in"), kept, dropped, tuple(lines)
    )
