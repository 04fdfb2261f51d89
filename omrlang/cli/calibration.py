"""``omr plan --calibration``: how far the plans of a state folder's runs were off, each estimate beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from omrlang.cli.figures import whole
from omrlang.estimate.ranges import exact
from omrlang.plan import Input


@dataclass(frozen=True, slots=True)
class Compared:
    """One number of one finished stage: planned as ``number``, ``actual`` when it ran."""

    stage: str
    number: Input
    actual: float

    @property
    def error(self) -> float:
        """How far the actual is from the middle of the estimate, as a share of the actual."""
        assert self.number.mid is not None, "an unknown number is compared with nothing"
        return (self.number.mid - self.actual) / self.actual

    @property
    def in_range(self) -> bool:
        lo, hi = self.number.lo, self.number.hi
        return lo is not None and hi is not None and lo <= self.actual <= hi


def compared(folder: Path) -> list[Compared]:
    """Every estimate that a finished run can be held against, oldest first; a stage that writes no tokens has none to compare.
    RunError where nothing was run."""
    from omr_runtime import lineage
    from omr_runtime.report.queries import estimated_and_actual
    from omr_runtime.store import State

    with lineage.read(State(folder).lineage) as reader:
        names = {stage["fingerprint"]: stage["name"] for stage in reader.stages()}
        lines = estimated_and_actual(reader)
    return [
        Compared(
            names[line["stage"]],
            Input(
                name=line["metric"].removesuffix("_out"),
                lo=line["lo"],
                mid=line["mid"],
                hi=line["hi"],
                unit=line["unit"],
                origin=line["origin"],
            ),
            line["value"],
        )
        for line in lines
        if line["stage"] in names and line["mid"] and line["value"]
    ]


def text(found: list[Compared]) -> str:
    """A line for each number, then how good each kind of number was."""
    rows = [("stage", "number", "planned", "was", "error", "")]
    for item in found:
        was = exact(item.actual, item.number.unit, "measured")
        inside = "in range" if item.in_range else "OUTSIDE"
        cells = (item.stage, item.number.name, f"{whole(item.number)} {item.number.origin}")
        rows.append((*cells, whole(was), f"{item.error:+.0%}", inside))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *_summary(found)]) + "\n"


def _summary(found: list[Compared]) -> list[str]:
    names = dict.fromkeys(item.number.name for item in found)
    return [_line(name, [item for item in found if item.number.name == name]) for name in names]


def _line(name: str, items: list[Compared]) -> str:
    inside = sum(item.in_range for item in items)
    error = median(abs(item.error) for item in items)
    return f"{name}: {inside} of {len(items)} in their range, median error {error:.0%}"
