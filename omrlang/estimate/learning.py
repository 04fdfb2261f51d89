"""Stages that train (sft, rl) become their work, their time and their memory."""

from __future__ import annotations

from dataclasses import replace

from omrlang.estimate.jobs import (
    engine_needs,
    memory,
    of_engine_apart,
    with_engine_apart,
    with_measured,
)
from omrlang.estimate.passing import Pass, like_seconds, rows_together
from omrlang.estimate.probed import own_probe, with_probed, with_probed_peak
from omrlang.estimate.rows import Flow, Past
from omrlang.estimate.shapes import root_model, shape_of
from omrlang.estimate.stage_costs import stage_costs
from omrlang.estimate.training import Work, rl_work, sft_work
from omrlang.estimate.writing import engine_of
from omrlang.plan import Costs
from omrlang.schema import Rl, Sft
from omrlang.types import Model


def of_training(spec: Sft | Rl, before: Past, walk: Pass) -> Costs:
    root = root_model(spec.model, walk.specs)
    shape = shape_of(root) if root is not None else None
    parent = walk.flows[spec.rows]
    own = own_probe(before, spec, root)
    work = with_probed(_work(spec, parent, before, walk, root), spec, parent, own)
    walk.responses[spec.name] = work.response
    by_source = parent.by_source if isinstance(spec, Sft) else {}
    flow = replace(parent, rows=work.rows_out, by_source=by_source, response=work.response)
    walk.flows[spec.name] = flow
    like = like_seconds(spec, root, walk, work.tokens, own)
    if like is not None and "seconds_watch" in work.extra:
        like["watch"] = work.extra["seconds_watch"]
    parts = like or {"work": work.seconds}
    costs = stage_costs(spec, before, parent.rows, flow, work.tokens, parts, work.extra)
    engine = engine_of(spec, root, spec.hardware) if isinstance(spec, Rl) else None
    found = memory(spec, shape, work.images, engine)
    apart = engine_needs(spec, shape) if isinstance(spec, Rl) and shape is not None else None
    if apart is not None:
        found = with_engine_apart(found, apart)
        costs = costs.model_copy(update={"extra": costs.extra | of_engine_apart(apart)})
    found = with_probed_peak(found, spec, root, own, walk.index)
    return costs.model_copy(update={"memory": with_measured(found, before.same)})


def _work(spec: Sft | Rl, parent: Flow, before: Past, walk: Pass, root: Model | None) -> Work:
    shape = shape_of(root) if root is not None else None
    if isinstance(spec, Sft):
        return sft_work(spec, parent, shape)
    like = walk.responses.get(getattr(spec.model, "stage", ""))
    engine = engine_of(spec, root, spec.hardware)
    watched = rows_together(spec.watch.rows.names, walk) if spec.watch is not None else None
    return rl_work(
        spec,
        parent,
        watched,
        shape,
        "transformers" if engine == "transformers" else "vllm",
        before,
        like,
    )
