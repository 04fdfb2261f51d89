"""Result files of lm-eval and lmms-eval to lines of a tournament: what an official program scored, beside what was scored here.

Both write one JSON object: ``results`` maps a task to its figures, each under ``METRIC,FILTER`` with ``METRIC_stderr,FILTER``
beside it; ``n-samples`` says how many items a task had, ``model_name`` and ``config`` what was asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omr_runtime.errors import RunError
from omr_runtime.report.tournament import Cell, Line
from omr_runtime.verify.accuracy import Z
from omrlang.published.tasks import BENCHMARKS

METRICS = ("acc_score", "exact_match", "acc")
"""What counts as accuracy, in 0 .. 1, the first that a task has."""


def official_line(path: Path) -> Line:
    """One line for the model of a result file. RunError says what about the file is not as documented."""
    data = _read(path)
    cells = dict(_cells(path, data))
    if not cells:
        raise RunError(f"{path}: no task with results")
    return Line(_model(data), "official", path.name, cells)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        raise RunError(f"{path}: no `results` of lm-eval or lmms-eval in it")
    return data


def _model(data: Mapping[str, Any]) -> str:
    config = data.get("config")
    inside = config.get("model") if isinstance(config, dict) else None
    return str(data.get("model_name") or inside or "unnamed model")


def _cells(path: Path, data: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    counts = data.get("n-samples") or {}
    for task, figures in data["results"].items():
        if isinstance(figures, dict) and (found := _figure(path, task, figures)) is not None:
            value, error = found
            ends = (None, None) if error is None else (value - Z * error, value + Z * error)
            lo, hi = (None if end is None else 100 * min(1.0, max(0.0, end)) for end in ends)
            effective = counts.get(task, {}).get("effective")
            yield BENCHMARKS.get(task, task), Cell(100 * value, lo, hi, None, effective)


def _figure(path: Path, task: str, figures: Mapping[str, Any]) -> tuple[float, float | None] | None:
    """Accuracy and standard error; None for a group of tasks, which has no figure of its own."""
    numbers = {k: v for k, v in figures.items() if "," in k and isinstance(v, int | float)}
    if not numbers:
        return None
    for metric in METRICS:
        for key, value in numbers.items():
            name, _, chosen = key.partition(",")
            if name == metric:
                return _share(path, key, value), numbers.get(f"{metric}_stderr,{chosen}")
    known = ", ".join(key for key in numbers if "_stderr," not in key)
    raise RunError(f"{path}: task `{task}` has none of {', '.join(METRICS)}; it has {known}")


def _share(path: Path, key: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise RunError(f"{path}: `{key}` is {value:g}; an accuracy in 0 .. 1 was expected")
    return float(value)
