"""Progress lines of workers to what a person sees: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LINE_EVERY_S = 10.0


class Display(Protocol):
    """How a run shows itself."""

    def start(self, address: str, number: int, total: int) -> None: ...

    def update(self, line: dict[str, Any]) -> None: ...

    def end(self, outcome: str) -> None: ...

    def message(self, text: str) -> None: ...

    def close(self) -> None: ...


def figures(live: dict[str, float]) -> str:
    """The live line: ``loss 1.23, tokens/s 456``.

    >>> figures({"loss": 1.23456, "tokens_per_s": 1234.5, "lr": 0.0001})
    'loss 1.235, tokens/s 1,234, lr 1e-04'
    """
    return ", ".join(
        f"{name.replace('_per_', '/')} {_number(value)}" for name, value in live.items()
    )


def _number(value: float) -> str:
    if value != value:
        return "nan"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    if 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:.4g}"


class PlainDisplay:
    """A line when a stage starts and ends, and at most one every ten seconds between."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.last = 0.0
        self.title = ""

    def _print(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def start(self, address: str, number: int, total: int) -> None:
        self.title = f"[{number}/{total}] {address}"
        self.last = time.monotonic()
        self._print(self.title)

    def update(self, line: dict[str, Any]) -> None:
        if time.monotonic() - self.last < _LINE_EVERY_S:
            return
        self.last = time.monotonic()
        total = f" of {line['total']:,}" if line.get("total") else ""
        live = figures(line.get("live") or {})
        self._print(
            f"{self.title}: {line['done']:,}{total} {line['unit']}{', ' + live if live else ''}"
        )

    def end(self, outcome: str) -> None:
        self._print(f"{self.title}: {outcome}")

    def message(self, text: str) -> None:
        self._print(text)

    def close(self) -> None:
        return


class BarDisplay:
    """One bar for each stage, with its live figures behind."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self.bars: RichProgress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[live]}", style="cyan"),
        )
        self.task: TaskID | None = None

    def start(self, address: str, number: int, total: int) -> None:
        self.bars.start()
        self.task = self.bars.add_task(
            f"[{number}/{total}] {address}", total=None, unit="", live=""
        )

    def update(self, line: dict[str, Any]) -> None:
        if self.task is not None:
            live = figures(line.get("live") or {})
            self.bars.update(
                self.task,
                completed=line["done"],
                total=line.get("total"),
                unit=line["unit"],
                live=live,
            )

    def end(self, outcome: str) -> None:
        if self.task is not None:
            task = self.bars.tasks[self.task]
            total = task.total or task.completed or 1
            self.bars.update(self.task, completed=total, total=total, live=outcome)
            self.bars.stop_task(self.task)
        self.task = None

    def message(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self.bars.stop()


def display() -> Display:
    """Bars where a person looks on, else lines."""
    return BarDisplay() if sys.stdout.isatty() else PlainDisplay()
