"""Slices of rows in, their outcomes out, by cascades on the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from omr_runtime.cluster import place_of
from omr_runtime.cluster.crew import Craft, Crew, Need, given_environment
from omr_runtime.cluster.orders import File, VerifyingOrder, asked_judges, image_name
from omr_runtime.cluster.sampling import need_of, num_engines, secrets_of
from omr_runtime.store import ImageStore
from omr_runtime.verify.cascade import Outcome
from omr_runtime.verify.judge import check_address
from omr_runtime.verify.slices import Slice
from omr_runtime.work import Work
from omrlang.types import Engine as EngineSettings
from omrlang.types import Hardware, Model, ModelRef, Prompt, RowExpr

SLICES_HELD = 3
"""One that is judged, and two that wait for it to be done."""


def check_judges(expr: RowExpr) -> None:
    """RunError for a judge without an address, before anything is leased."""
    for model in asked_judges(expr):
        check_address(model)


def judge_slices(
    work: Work, expr: RowExpr, prompt: Prompt | None, parts: Iterable[Slice]
) -> Iterator[tuple[Slice, list[Outcome]]]:
    """Each slice with its outcomes, as they come. Workers are hired when the first slice is there: what makes the slices
    may need the cluster's room before."""
    waiting = iter(parts)
    first = next(waiting, None)
    if first is None:
        return
    crew = _crew(work, expr, prompt)
    try:
        for part, _, outcomes in crew.work(chain([first], waiting)):
            yield part, outcomes
    finally:
        crew.close()


def _crew(work: Work, expr: RowExpr, prompt: Prompt | None) -> Crew[Slice]:
    place = place_of(work)
    assert place is not None, "asked for by the caller"
    hardware, cluster = place
    order, images = VerifyingOrder(work, expr, prompt), ImageStore(work.state)

    def images_of(part: Slice) -> list[File]:
        if not order.looks_at_images:
            return []
        return [
            (image_name(n), images.path(n)) for row in part.rows for n in row.get("images") or ()
        ]

    judges = list(asked_judges(expr))
    craft: Craft[Slice] = Craft(
        order,
        _need(hardware, judges),
        SLICES_HELD,
        lambda part: (0,),
        lambda part, parts: part,
        images_of,
        given_environment([name for judge in judges for name in secrets_of(_engine(judge))]),
    )
    engines = num_engines(hardware, craft.need)
    return Crew(cluster, craft, Path(work.state), engines)


def _need(hardware: Hardware, judges: list[ModelRef]) -> Need:
    """GPUs only for a judge that is served in process."""
    needs = [need_of(hardware, judge, _engine(judge)) for judge in judges]
    return max(needs, key=lambda need: need.gpus, default=Need())


def _engine(judge: ModelRef) -> EngineSettings | None:
    return judge.engine if isinstance(judge, Model) else None
