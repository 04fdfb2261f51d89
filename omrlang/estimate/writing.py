"""Stages that write text (sample, eval) become their rows, their tokens and their time, by who writes."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from omrlang.estimate import assumptions
from omrlang.estimate.compute import sample_seconds, seconds_at, start_seconds
from omrlang.estimate.judges import token_dollars
from omrlang.estimate.passing import Pass, like_seconds, rows_together
from omrlang.estimate.probed import own_probe, probed_peak, probed_tokens
from omrlang.estimate.ranges import derive, dollars, product, unknown
from omrlang.estimate.rows import Flow, Past, guess, measured, sample_rows, saved_samples, times_n
from omrlang.estimate.shapes import root_model, shape_of
from omrlang.estimate.stage_costs import stage_costs
from omrlang.estimate.tokens import prompt_tokens, response_tokens, row_visual_tokens
from omrlang.plan import Costs, Estimate
from omrlang.schema import Eval, Rl, Sample
from omrlang.types import Engine, Hardware, Model, OpenAI, Scripted


def of_writing(spec: Sample | Eval, before: Past, walk: Pass) -> Costs:
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
        "tokens", "rows x prompt (n samples read it once)", product, rows=parent.rows, prompt=prompt
    )
    written = derive(
        "tokens", "responses x tokens of one", product, responses=flow.rows, tokens=response
    )
    context = derive(
        "tokens",
        "prompt + half a response",
        lambda prompt, response: prompt + response / 2,
        prompt=prompt,
        response=response,
    )
    engine, chosen = engine_of(spec, root, spec.hardware), _settings(spec, root)
    parts = _writing_time(engine, chosen, root, _serving(spec), read, written, context, flow.rows)
    extra = {"prompt_tokens": read, "tokens_per_prompt": prompt, "tokens_per_response": response}
    parts = like_seconds(spec, root, walk, written, own) or parts
    extra |= probed_peak(own) | _left_undrawn(spec, parent)
    costs = stage_costs(spec, before, parent.rows, flow, written, parts, extra)
    if _serving(spec) is None and isinstance(chosen, OpenAI):
        usd = dollars(token_dollars(root, chosen, read, written))
        return costs.model_copy(update={"usd": usd})
    return costs


def _left_undrawn(spec: Sample | Eval, parent: Flow) -> dict[str, Estimate]:
    found = saved_samples(spec, parent.rows) if isinstance(spec, Sample) else None
    return {} if found is None else {"samples_saved": found}


def _rows_asked(spec: Sample | Eval, walk: Pass) -> Flow:
    if isinstance(spec, Sample):
        return walk.flows[spec.rows]
    return rows_together(spec.rows, walk)


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
    chosen = _settings(spec, root)
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


def _settings(spec: Sample | Eval | Rl, root: Model | None) -> Engine | None:
    """What the recipe says of who writes. How a base model is served says nothing of what is trained from it."""
    if spec.engine is not None or isinstance(spec, Rl) or spec.model.kind != "model":
        return spec.engine
    return root.engine if root is not None else None


def _writing_time(
    engine: str,
    settings: Engine | None,
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
            "write": seconds_at(rows, rate),
        }
    if engine == "openai" and hardware is None:
        return {
            "write": unknown("s", "the model is served elsewhere, at a speed that nobody declared")
        }
    start = start_seconds("vllm" if engine == "vllm" else "torch")
    shape = shape_of(root) if root is not None else None
    kind = "vllm" if engine != "transformers" else engine
    write = sample_seconds(shape, hardware, kind, read, written, context, settings=settings)
    return {"start": start, "write": write}
