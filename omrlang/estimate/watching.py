"""Validation during reinforcement becomes answers, tokens and seconds: so many looks, each over all watched rows."""

from __future__ import annotations

from dataclasses import dataclass

from omrlang.estimate.compute import sample_seconds
from omrlang.estimate.ranges import added, derive, product, setting
from omrlang.estimate.rows import Flow, times_n
from omrlang.estimate.tokens import prompt_tokens, row_visual_tokens
from omrlang.plan import Estimate
from omrlang.schema import Rl
from omrlang.settle import drawing_engine, drawing_hardware, gpus_of_an_engine
from omrlang.types import Shape, Watch


@dataclass(frozen=True, slots=True)
class Watching:
    """All looks of a run. ``seconds`` is None where the model's shape is not declared."""

    looks: Estimate
    answers: Estimate
    seconds: Estimate | None


def watching(
    spec: Rl,
    watch: Watch,
    flow: Flow,
    steps: Estimate,
    response: Estimate,
    shape: Shape | None,
    engine: str,
) -> Watching:
    """``flow`` has the watched rows, ``response`` is how long the policy writes."""
    looks = derive(
        "looks",
        "one before the first step and one after every so many",
        lambda steps, every: 1.0 + steps // every,
        falling=["every"],
        steps=steps,
        every=setting(watch.every, "steps", "every"),
    )
    answers = derive(
        "answers",
        "looks x rows x n",
        product,
        looks=looks,
        answers=times_n(flow.rows, watch.n),
    )
    if shape is None:
        return Watching(looks, answers, None)
    visual = row_visual_tokens(flow, shape, spec.min_pixels, spec.max_pixels)
    prompt = prompt_tokens(flow, spec.prompt, visual)
    read = derive(
        "tokens", "looks x rows x prompt", product, looks=looks, rows=flow.rows, prompt=prompt
    )
    each = _at_most(response, watch.max_tokens or spec.max_response)
    written = derive("tokens", "answers x response", product, answers=answers, response=each)
    length = added("tokens", "prompt + response", {"prompt": prompt, "response": each})
    hardware, split = drawing_hardware(spec), gpus_of_an_engine(spec)
    given = (read, written, length, split, drawing_engine(spec, engine))
    seconds = sample_seconds(shape, hardware, engine, *given)
    return Watching(looks, answers, seconds)


def _at_most(response: Estimate, limit: int) -> Estimate:
    return derive(
        "tokens",
        "as long as a rollout, at most the limit",
        lambda response, limit: min(response, limit),
        response=response,
        limit=setting(limit, "tokens", "max_tokens"),
    )
