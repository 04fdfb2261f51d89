"""The lowered stages and the index become what each stage takes: rows, tokens, time, memory and money, in one pass."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

from omrlang.estimate import assumptions
from omrlang.estimate.cascade import cascade
from omrlang.estimate.compute import gpu_hours, sample_seconds, start_seconds
from omrlang.estimate.history import Speed, like_stage, measured_seconds, past, speed_of, speeds
from omrlang.estimate.jobs import (
    engine_needs,
    memory,
    of_engine_apart,
    with_engine_apart,
    with_measured,
)
from omrlang.estimate.judges import judge_costs, token_dollars
from omrlang.estimate.near import near_seconds
from omrlang.estimate.probed import (
    own_probe,
    probed_peak,
    probed_tokens,
    with_probed,
    with_probed_peak,
)
from omrlang.estimate.ranges import (
    added,
    as_estimate,
    between,
    derive,
    dollars,
    exact,
    free,
    product,
    total,
    total_money,
    unknown,
)
from omrlang.estimate.rows import (
    Flow,
    Past,
    filter_rows,
    guess,
    keep_rate,
    measured,
    mix_rows,
    sample_rows,
    satisfied,
    saved_samples,
    source_rows,
    times_n,
    together,
)
from omrlang.estimate.shapes import root_model, shape_of
from omrlang.estimate.tokens import (
    pixels,
    prompt_tokens,
    question_tokens,
    response_tokens,
    row_visual_tokens,
    source_response,
)
from omrlang.estimate.training import Work, rl_work, sft_work
from omrlang.estimate.unpublished import open_setting, without_numbers, without_rows
from omrlang.lower import Lowered
from omrlang.plan import Action, Asked, Costs, Estimate, Money, Totals
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source, Spec
from omrlang.settle import DEFAULT_SCORE
from omrlang.state import Index, Probe
from omrlang.types import Engine, Enough, Hardware, Model, Near, OpenAI, RowExpr, Scripted

NO_TOKENS = exact(0, "tokens", "formula", "no tokens are written")


@dataclass(slots=True)
class _Pass:
    """What the pass knows when it comes to a stage: rows and responses of all stages before it."""

    specs: dict[str, Spec]
    index: Index
    recipe: Path
    speeds: dict[str, Speed]
    flows: dict[str, Flow] = field(default_factory=dict)
    responses: dict[str, Estimate | None] = field(default_factory=dict)


def estimate(stages: tuple[Lowered, ...], index: Index, recipe: Path) -> dict[str, Costs]:
    """Costs by stage, each of the whole stage as if nothing were cached."""
    walk = _Pass({stage.name: stage.spec for stage in stages}, index, recipe, speeds(index))
    return {stage.name: _stage(stage, walk) for stage in stages}


def _stage(stage: Lowered, walk: _Pass) -> Costs:
    costs = _known(stage, walk)
    costs = _with_judges(
        stage, costs.model_copy(update={"asked": _asking(stage, costs, walk)}), walk
    )
    path = open_setting(stage.spec)
    if path is None:
        return costs
    walk.flows[stage.name] = without_rows(walk.flows[stage.name], path)
    return without_numbers(costs, path)


def _with_judges(stage: Lowered, costs: Costs, walk: _Pass) -> Costs:
    """Judges' calls, tokens and dollars beside the stage's own; their time in it, where it is known and none was measured."""
    found = judge_costs(stage.decided, costs.asked, walk.flows[stage.name], walk.specs)
    if not found:
        return costs
    update: dict[str, object] = {"extra": {**costs.extra, **found}}
    if found["judge_seconds"].mid is not None and costs.seconds.origin != "measured":
        hardware: Hardware | None = getattr(stage.spec, "hardware", None)
        parts = {"stage": costs.seconds, "judges": found["judge_seconds"]}
        seconds = added("s", "stage + judges", parts)
        hours = gpu_hours(seconds, hardware)
        update |= {"seconds": seconds, "gpu_hours": hours, "usd": _usd(hours, hardware)}
    return costs.model_copy(update=update)


def _asking(stage: Lowered, costs: Costs, walk: _Pass) -> tuple[Asked, ...]:
    """How often what verifies rows, answers or rollouts is asked."""
    match stage.decided:
        case Filter() as spec:
            keep = keep_rate(spec, walk.flows[spec.rows], past(stage, walk.index, walk.recipe))
            return cascade(spec.keep, costs.rows_in, keep)
        case Sample(until=Enough(of=expr)) as spec:
            return cascade(expr, costs.rows_out, satisfied(spec))
        case Rl() as spec:
            asked = cascade(spec.reward, costs.extra["rollouts"], None)
            return asked + _watched(spec, costs)
        case Eval(score=RowExpr() as expr):
            return cascade(expr, costs.rows_out, None)
        case Eval():
            return cascade(DEFAULT_SCORE, costs.rows_out, None)
        case _:
            return ()


def _watched(spec: Rl, costs: Costs) -> tuple[Asked, ...]:
    if spec.watch is None:
        return ()
    found = cascade(spec.watch.score or DEFAULT_SCORE, costs.extra["watch_answers"], None)
    return tuple(item.model_copy(update={"what": f"watch: {item.what}"}) for item in found)


def _known(stage: Lowered, walk: _Pass) -> Costs:
    before = past(stage, walk.index, walk.recipe)
    spec = stage.spec
    match spec:
        case Source() | Mix() | Filter():
            return _program(stage, spec, before, walk)
        case Sample() | Eval():
            return _sampling(spec, before, walk)
        case Sft() | Rl():
            return _training(spec, before, walk)
        case _:
            assert_never(spec)


# ---- stages that are programs --------------------------------------------------------------------------------------


def _program(stage: Lowered, spec: Source | Mix | Filter, before: Past, walk: _Pass) -> Costs:
    rows_in, flow = _program_rows(stage, spec, walk, before)
    flow = measured(flow, before)
    walk.flows[spec.name] = flow
    rate = guess(_rows_a_second(spec), "rows/s", "through a program on this machine")
    work = derive(
        "s",
        "rows / rows a second",
        lambda rows, rate: rows / rate,
        falling=["rate"],
        rows=rows_in,
        rate=rate,
    )
    parts = {"start": start_seconds("light"), "work": work}
    if isinstance(spec, Filter | Mix) and isinstance(spec.unique, Near):
        parts |= near_seconds(spec.unique, rows_in)
    extra = {f"from {name}": rows for name, rows in flow.parts.items()}
    return _costs(spec, before, rows_in, flow, NO_TOKENS, parts, extra)


def _program_rows(
    stage: Lowered, spec: Source | Mix | Filter, walk: _Pass, before: Past
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


# ---- stages that write text ----------------------------------------------------------------------------------------


def _sampling(spec: Sample | Eval, before: Past, walk: _Pass) -> Costs:
    root = root_model(spec.model, walk.specs)
    shape = shape_of(root) if root is not None else None
    parent = _rows_asked(spec, walk)
    like = walk.responses.get(getattr(spec.model, "stage", ""))
    own = own_probe(before, spec, root)
    response = probed_tokens(own) if own else response_tokens(spec, before, like)
    flow = measured(_asked(spec, parent, response), before)
    walk.flows[spec.name] = flow
    visual = row_visual_tokens(parent, shape, spec.min_pixels, spec.max_pixels)
    prompt = prompt_tokens(parent, spec.prompt, visual, before)
    read = derive(
        "tokens",
        "rows x prompt (n samples read it once)",
        product,
        rows=parent.rows,
        prompt=prompt,
    )
    written = derive(
        "tokens",
        "responses x tokens of one",
        product,
        responses=flow.rows,
        tokens=response,
    )
    context = derive(
        "tokens",
        "prompt + half a response",
        lambda prompt, response: prompt + response / 2,
        prompt=prompt,
        response=response,
    )
    engine = engine_of(spec, root, spec.hardware)
    parts = _writing_time(engine, root, _serving(spec), read, written, context, flow.rows)
    extra = {"prompt_tokens": read, "tokens_per_prompt": prompt, "tokens_per_response": response}
    parts = _like(spec, root, walk, written, own) or parts
    extra |= probed_peak(own) | _left_undrawn(spec, parent)
    costs = _costs(spec, before, parent.rows, flow, written, parts, extra)
    chosen = spec.engine or (root.engine if root is not None else None)
    if _serving(spec) is None and isinstance(chosen, OpenAI):
        usd = dollars(token_dollars(root, chosen, read, written))
        return costs.model_copy(update={"usd": usd})
    return costs


def _left_undrawn(spec: Sample | Eval, parent: Flow) -> dict[str, Estimate]:
    found = saved_samples(spec, parent.rows) if isinstance(spec, Sample) else None
    return {} if found is None else {"samples_saved": found}


def _rows_asked(spec: Sample | Eval, walk: _Pass) -> Flow:
    if isinstance(spec, Sample):
        return walk.flows[spec.rows]
    return _together(spec.rows, walk)


def _together(names: tuple[str, ...], walk: _Pass) -> Flow:
    """Several row sets that are asked as one."""
    flows = {name: walk.flows[name] for name in names}
    return replace(
        together(flows, {name: flow.rows for name, flow in flows.items()}), response=None
    )


def _asked(spec: Sample | Eval, parent: Flow, response: Estimate) -> Flow:
    if isinstance(spec, Sample):
        return sample_rows(spec, parent, response)
    rows = times_n(parent.rows, spec.n)
    by_source = {name: times_n(count, spec.n) for name, count in parent.by_source.items()}
    return replace(parent, rows=rows, by_source=by_source, response=response, per_parent=spec.n)


def _serving(spec: Sample | Eval) -> Hardware | None:
    """The machines that serve the model; the CPUs of a cluster only ask, as this machine does."""
    hardware = spec.hardware
    if hardware is not None and hardware.gpu is None and hardware.cluster is not None:
        return None
    return hardware


def engine_of(spec: Sample | Eval | Rl, root: Model | None, hardware: Hardware | None) -> str:
    """Who will write: what the recipe says, else vLLM where it is installed (on a CPU for text only), else transformers."""
    chosen: Engine | None = spec.engine or (root.engine if root is not None else None)
    if root is not None and isinstance(root.source, Scripted):
        return "scripted"
    if chosen is not None:
        return chosen.kind
    shape = shape_of(root) if root is not None else None
    vision = root is not None and (root.vision or bool(shape and shape.vision_params))
    on_gpu = hardware is not None and hardware.gpu is not None
    # On a CPU vLLM serves text alone, and has attention for heads from 32 on.
    can = on_gpu or not (vision or (shape is not None and shape.head_dim < 32))
    return "vllm" if can and importlib.util.find_spec("vllm") is not None else "transformers"


def _writing_time(
    engine: str,
    root: Model | None,
    hardware: Hardware | None,
    read: Estimate,
    written: Estimate,
    context: Estimate,
    rows: Estimate,
) -> dict[str, Estimate]:
    if engine == "scripted":
        rate = guess(assumptions.SCRIPTED_ROWS_PER_S, "rows/s", "a program writes")
        return {
            "start": start_seconds("light"),
            "write": derive(
                "s",
                "rows / rows a second",
                lambda rows, rate: rows / rate,
                falling=["rate"],
                rows=rows,
                rate=rate,
            ),
        }
    if engine == "openai" and hardware is None:
        return {
            "write": unknown("s", "the model is served elsewhere, at a speed that nobody declared")
        }
    start = start_seconds("vllm" if engine == "vllm" else "torch")
    shape = shape_of(root) if root is not None else None
    return {
        "start": start,
        "write": sample_seconds(
            shape, hardware, "vllm" if engine != "transformers" else engine, read, written, context
        ),
    }


def _like(
    spec: Spec, root: Model | None, walk: _Pass, tokens: Estimate, own: Probe | None
) -> dict[str, Estimate] | None:
    """Time by the speed of the stage's own probe, else by a like stage's."""
    speed = speed_of(own) if own else like_stage(spec, root, walk.speeds)
    return None if speed is None else {"like": speed.scaled(tokens)}


# ---- stages that train ---------------------------------------------------------------------------------------------


def _training(spec: Sft | Rl, before: Past, walk: _Pass) -> Costs:
    root = root_model(spec.model, walk.specs)
    shape = shape_of(root) if root is not None else None
    parent = walk.flows[spec.rows]
    own = own_probe(before, spec, root)
    work = with_probed(_work(spec, parent, before, walk, root), spec, parent, own)
    walk.responses[spec.name] = work.response
    by_source = parent.by_source if isinstance(spec, Sft) else {}
    flow = replace(parent, rows=work.rows_out, by_source=by_source, response=work.response)
    walk.flows[spec.name] = flow
    like = _like(spec, root, walk, work.tokens, own)
    if like is not None and "seconds_watch" in work.extra:
        like["watch"] = work.extra["seconds_watch"]
    parts = like or {"work": work.seconds}
    costs = _costs(spec, before, parent.rows, flow, work.tokens, parts, work.extra)
    engine = engine_of(spec, root, spec.hardware) if isinstance(spec, Rl) else None
    found = memory(spec, shape, work.images, engine)
    apart = engine_needs(spec, shape) if isinstance(spec, Rl) and shape is not None else None
    if apart is not None:
        found = with_engine_apart(found, apart)
        costs = costs.model_copy(update={"extra": costs.extra | of_engine_apart(apart)})
    found = with_probed_peak(found, spec, root, own, walk.index)
    return costs.model_copy(update={"memory": with_measured(found, before.same)})


def _work(spec: Sft | Rl, parent: Flow, before: Past, walk: _Pass, root: Model | None) -> Work:
    shape = shape_of(root) if root is not None else None
    if isinstance(spec, Sft):
        return sft_work(spec, parent, shape)
    like = walk.responses.get(getattr(spec.model, "stage", ""))
    engine = engine_of(spec, root, spec.hardware)
    watched = _together(spec.watch.rows.names, walk) if spec.watch is not None else None
    return rl_work(
        spec,
        parent,
        watched,
        shape,
        "transformers" if engine == "transformers" else "vllm",
        before,
        like,
    )


# ---- together ------------------------------------------------------------------------------------------------------


def _costs(
    spec: Spec,
    before: Past,
    rows_in: Estimate,
    flow: Flow,
    tokens: Estimate,
    parts: dict[str, Estimate],
    extra: dict[str, Estimate],
) -> Costs:
    record = before.same
    seconds = (measured_seconds(record) if record is not None else None) or _summed(parts)
    if record is not None and record.tokens is not None and tokens is not NO_TOKENS:
        tokens = exact(record.tokens, "tokens", "measured", "counted when the stage ran")
    hardware: Hardware | None = getattr(spec, "hardware", None)
    hours = gpu_hours(seconds, hardware)
    return Costs(
        rows_in=rows_in,
        rows_out=flow.rows,
        tokens=tokens,
        seconds=seconds,
        gpu_hours=hours,
        usd=_usd(hours, hardware),
        rows_by_source=dict(flow.by_source),
        extra=extra,
    )


def _summed(parts: dict[str, Estimate]) -> Estimate:
    return next(iter(parts.values())) if len(parts) == 1 else added("s", " + ".join(parts), parts)


def _usd(hours: Estimate, hardware: Hardware | None) -> Money:
    if hardware is None or hardware.gpu is None:
        return free("no GPU is rented")
    return dollars(
        derive("USD", "GPU-hours x price", product, gpu_hours=hours, price=_price(hardware))
    )


def _price(hardware: Hardware) -> Estimate:
    """Of one device and one hour: the recipe's own, else the dated one of the device."""
    gpu, unit = hardware.gpu, "USD / GPU-hour"
    if hardware.usd_per_gpu_hour is not None:
        return exact(hardware.usd_per_gpu_hour, unit, "declared", f"`price` of `{hardware.name}`")
    if gpu is None or gpu.usd_per_gpu_hour is None:
        return unknown(unit, "no price is declared")
    dated = f", listed {gpu.price_date}" if gpu.price_date else ""
    return exact(gpu.usd_per_gpu_hour, unit, "declared", f"`price` of {gpu.name}{dated}")


def totals(
    costs: Mapping[str, Costs], actions: Mapping[str, Action], specs: Mapping[str, Spec]
) -> Totals:
    """Sums over what will run; a partly done stage counts in full at the high end and not at the low end."""
    due = {
        name: _remaining(cost, actions[name])
        for name, cost in costs.items()
        if actions[name] != "cached"
    }
    rented = {name: cost for name, cost in due.items() if cost.gpu_hours.mid != 0}

    def summed(unit: str, metric: str, of: Mapping[str, Costs]) -> Estimate:
        return total(unit, "sum over stages", {name: getattr(of[name], metric) for name in of})

    sampled = {name: cost for name, cost in due.items() if specs[name].kind == "sample"}
    return Totals(
        rows_sampled=summed("rows", "rows_out", sampled),
        tokens=summed("tokens", "tokens", due),
        seconds=summed("s", "seconds", due),
        gpu_hours=summed("GPU-hours", "gpu_hours", rented),
        usd=total_money(_spent(due, rented)),
        not_estimated=sum(_is_open(cost) for cost in due.values()),
    )


def _spent(due: Mapping[str, Costs], rented: Mapping[str, Costs]) -> dict[str, Money]:
    """What each stage pays for its machines or its provider, and to its judges'."""
    stages = {name: cost.usd for name, cost in due.items() if name in rented or cost.usd.mid != 0}
    judges = {
        f"judges of {name}": dollars(cost.extra["judge_usd"])
        for name, cost in due.items()
        if "judge_usd" in cost.extra and cost.extra["judge_usd"].mid != 0
    }
    return stages | judges


def _is_open(cost: Costs) -> bool:
    """Whether any number of a stage is unknown."""
    numbers = (cost.rows_out, cost.tokens, cost.seconds, cost.gpu_hours, cost.usd)
    memory_open = cost.memory is not None and cost.memory.total.mid is None
    judge = cost.extra.get("judge_usd")
    judge_open = judge is not None and judge.mid is None
    return memory_open or judge_open or any(number.mid is None for number in numbers)


def _remaining(cost: Costs, action: Action) -> Costs:
    """Of a partly done stage anything from nothing to all of it."""
    if action != "partial":
        return cost
    share = between(0.0, 1.0, 1.0, "", "assumed", "how much of the stage is left")

    def left(number: Estimate) -> Estimate:
        formula = "what is left of a partly done stage"
        return derive(number.unit, formula, product, whole=number, share=share)

    parts = {name: left(getattr(cost, name)) for name in ("tokens", "seconds", "gpu_hours")}
    extra = {n: left(item) if n == "judge_usd" else item for n, item in cost.extra.items()}
    usd = dollars(left(as_estimate(cost.usd)))
    return cost.model_copy(update={**parts, "usd": usd, "extra": extra})
