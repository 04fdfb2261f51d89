"""Slices of rows to their outcomes: by a cascade in this process, or by many on the cluster that the stage names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from omr_runtime.cluster import place_of
from omr_runtime.verify.asking import cascade_for
from omr_runtime.verify.cascade import Outcome
from omr_runtime.verify.slices import Slice
from omr_runtime.work import Work
from omrlang.types import Prompt, RowExpr

Judge: TypeAlias = Callable[[Iterable[Slice]], Iterator[tuple[Slice, list[Outcome]]]]
"""Slices are read as they are needed. They come back whole, not always in the order in which they went."""


@contextlib.contextmanager
def judging(work: Work, expr: RowExpr, prompt: Prompt | None = None) -> Iterator[Judge]:
    """Whoever judges for this stage. RunError at once for a judge that cannot be asked."""
    if place_of(work) is None:
        with cascade_for(work, expr, prompt) as cascade:
            yield lambda parts: cascade.evaluate_batches((part, part.rows) for part in parts)
    else:
        from omr_runtime.cluster.verifying import check_judges, judge_slices

        check_judges(expr)
        yield lambda parts: judge_slices(work, expr, prompt, parts)
