"""Stages that are programs (source, mix, filter) become their rows and their time."""

from __future__ import annotations

from typing import assert_never

from omrlang.estimate import assumptions
from omrlang.estimate.compute import seconds_at, start_seconds
from omrlang.estimate.near import near_seconds
from omrlang.estimate.passing import Pass
from omrlang.estimate.ranges import added
from omrlang.estimate.rows import Flow, Past, filter_rows, guess, measured, mix_rows, source_rows
from omrlang.estimate.stage_costs import NO_TOKENS, stage_costs
from omrlang.estimate.tokens import pixels, question_tokens, source_response
from omrlang.lower import Lowered
from omrlang.plan import Costs, Estimate
from omrlang.schema import Filter, Mix, Source
from omrlang.types import Near


def of_program(stage: Lowered, spec: Source | Mix | Filter, before: Past, walk: Pass) -> Costs:
    rows_in, flow = _program_rows(stage, spec, walk, before)
    flow = measured(flow, before)
    walk.flows[spec.name] = flow
    rate = guess(_rows_a_second(spec), "rows/s", "through a program on this machine")
    work = seconds_at(rows_in, rate)
    parts = {"start": start_seconds("light"), "work": work}
    if isinstance(spec, Filter | Mix) and isinstance(spec.unique, Near):
        parts |= near_seconds(spec.unique, rows_in)
    extra = {f"from {name}": rows for name, rows in flow.parts.items()}
    return stage_costs(spec, before, rows_in, flow, NO_TOKENS, parts, extra)


def _program_rows(
    stage: Lowered, spec: Source | Mix | Filter, walk: Pass, before: Past
) -> tuple[Estimate, Flow]:
    match spec:
        case Source():
            pin = stage.pins[0] if stage.pins else None
            rows = source_rows(spec, pin, before)
            label = spec.label or spec.name
            flow = Flow(
                rows,
                {label: rows},
                question_tokens(spec, pin),
                source_response(spec, pin),
                pixels(spec),
            )
            return rows, flow
        case Mix():
            flow = mix_rows(spec, walk.flows)
            return added(
                "rows",
                "rows of the parts",
                {part.rows: walk.flows[part.rows].rows for part in spec.parts},
            ), flow
        case Filter():
            parent = walk.flows[spec.rows]
            return parent.rows, filter_rows(spec, parent, before)
        case _:
            assert_never(spec)


def _rows_a_second(spec: Source | Mix | Filter) -> assumptions.Guess:
    if isinstance(spec, Filter):
        return assumptions.RULES_PER_S
    if isinstance(spec, Source) and spec.place.kind == "synthetic":
        return assumptions.PICTURES_PER_S
    return assumptions.ROWS_PER_S
