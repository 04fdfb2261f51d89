"""An ``sft`` or ``rl`` stage becomes its steps, tokens and seconds."""

from __future__ import annotations

from dataclasses import dataclass

from omrlang.estimate import assumptions
from omrlang.estimate.compute import (
    overhead_seconds,
    passes,
    sample_seconds,
    start_seconds,
    tail_seconds,
    train_seconds,
)
from omrlang.estimate.memory import on_cpu, pass_tokens
from omrlang.estimate.ranges import added, between, derive, exact, unknown
from omrlang.estimate.rows import Flow, Past, guess
from omrlang.estimate.tokens import prompt_tokens, response_tokens, row_tokens, visual_tokens
from omrlang.plan import Estimate
from omrlang.schema import Rl, Sft
from omrlang.settle import num_devices, settled_amount
from omrlang.types import Shape

ONE_PASS = 4096
"""Tokens of one pass on a CPU, where the recipe leaves them to the plan."""


@dataclass(frozen=True, slots=True)
class Work:
    """``tokens`` go through the trainer; ``rows_out`` is what it learns from; ``response`` how long the model then writes."""

    tokens: Estimate
    seconds: Estimate
    rows_out: Estimate
    response: Estimate | None
    extra: dict[str, Estimate]


def sft_work(spec: Sft, flow: Flow, shape: Shape | None) -> Work:
    """Steps or epochs, whichever was not given, follows from the rows' tokens and the packs."""
    each = row_tokens(spec, flow, shape)
    all_tokens = derive(
        "tokens",
        "rows x tokens of a row",
        lambda rows, each: rows * each,
        rows=flow.rows,
        each=each,
    )
    batch = settled_amount(spec.batch, num_devices(spec))
    per_step = _tokens_a_step(spec, batch.unit, batch.value, each)
    if spec.steps is not None:
        steps = exact(spec.steps, "steps", "formula", "`steps`")
        tokens = derive(
            "tokens",
            "steps x tokens of a batch",
            lambda steps, batch: steps * batch,
            steps=steps,
            batch=per_step,
        )
        epochs = derive(
            "epochs",
            "tokens / tokens of the rows",
            lambda tokens, rows: tokens / rows,
            falling=["rows"],
            tokens=tokens,
            rows=all_tokens,
        )
    else:
        count = spec.epochs or 0.0
        epochs = exact(count, "epochs", "formula", "`epochs`")
        tokens = derive(
            "tokens",
            "epochs x tokens of the rows",
            lambda epochs, rows: epochs * rows,
            epochs=epochs,
            rows=all_tokens,
        )
        steps = derive(
            "steps",
            "tokens / tokens of a batch",
            lambda tokens, batch: max(1.0, tokens / batch),
            falling=["batch"],
            tokens=tokens,
            batch=per_step,
        )
    visual = visual_tokens(flow.pixels, shape, spec.min_pixels, spec.max_pixels)
    share = derive(
        "",
        "image tokens of a row",
        lambda visual, each: min(1.0, visual / each),
        falling=["each"],
        visual=visual,
        each=each,
    )
    seconds = _with_start(
        spec,
        {"train": train_seconds(spec, shape, tokens, each, share)},
        passes(spec, tokens, spec.pack),
    )
    extra = {"steps": steps, "epochs": epochs, "tokens_per_row": each}
    return Work(tokens, seconds, flow.rows, flow.response, extra)


def _tokens_a_step(spec: Sft, unit: str, value: float, each: Estimate) -> Estimate:
    """Tokens of one optimiser step: packs, all but full, or rows."""
    if unit == "rows":
        return derive(
            "tokens", "rows of a batch x tokens of a row", lambda each: value * each, each=each
        )
    size = value * spec.pack
    if spec.steps is not None:
        return exact(size, "tokens", "formula", "packs x pack")
    fill = guess(assumptions.PACK_FILL, "", "how full packs are")
    return derive("tokens", "packs x pack x fill", lambda fill: size * fill, fill=fill)


def _with_start(spec: Sft | Rl, parts: dict[str, Estimate], count: Estimate) -> Estimate:
    parts = {"start": start_seconds("torch"), **parts}
    if on_cpu(spec):
        parts["passes"] = overhead_seconds(count)
    return added("s", " + ".join(parts), parts)


def rl_work(
    spec: Rl, flow: Flow, shape: Shape | None, engine: str, past: Past, like: Estimate | None
) -> Work:
    """Steps x (generation with its tail + old log-probs where they are needed + update + weights to the engine)."""
    prompts = settled_amount(spec.batch, num_devices(spec)).value
    steps = _rl_steps(spec, flow, prompts)
    rollouts = derive(
        "rollouts",
        "steps x prompts x group",
        lambda steps: steps * prompts * spec.group,
        steps=steps,
    )
    visual = visual_tokens(flow.pixels, shape, spec.min_pixels, spec.max_pixels)
    prompt = _at_most(prompt_tokens(flow, spec.prompt, visual), spec.max_prompt)
    response = response_tokens(spec, past, like)
    read = derive(
        "tokens",
        "rollouts x prompt / group (a prompt is read once)",
        lambda n, each: n * each / spec.group,
        n=rollouts,
        each=prompt,
    )
    written = derive(
        "tokens", "rollouts x response", lambda n, each: n * each, n=rollouts, each=response
    )
    length = derive(
        "tokens",
        "prompt + response",
        lambda prompt, response: prompt + response,
        prompt=prompt,
        response=response,
    )
    tokens = derive(
        "tokens",
        "rollouts x (prompt + response)",
        lambda n, each: n * each,
        n=rollouts,
        each=length,
    )
    extra = {
        "steps": steps,
        "rollouts": rollouts,
        "prompt_tokens": read,
        "response_tokens": written,
        "tokens_per_row": length,
    }
    if shape is None:
        return Work(
            tokens, unknown("s", "the model's shape is not declared"), rollouts, response, extra
        )
    share = derive(
        "",
        "image tokens of a rollout",
        lambda visual, each: min(1.0, visual / each),
        falling=["each"],
        visual=visual,
        each=length,
    )
    update = train_seconds(spec, shape, tokens, length, share)
    generation = _generation(spec, shape, engine, read, written, length, steps)
    parts = {"generation": generation, "update": update, "sync": _sync(steps)}
    if (
        spec.minibatch is not None
        and settled_amount(spec.minibatch, num_devices(spec)).value < prompts
    ):
        parts["old log-probs"] = derive(
            "s", "a third of the update", lambda update: update / 3, update=update
        )
    longest = max(ONE_PASS, pass_tokens(spec))
    return Work(
        tokens,
        _with_start(spec, parts, passes(spec, tokens, longest)),
        rollouts,
        response,
        {**extra, **_named(parts)},
    )


def _named(parts: dict[str, Estimate]) -> dict[str, Estimate]:
    return {
        f"seconds_{name.replace(' ', '_').replace('-', '_')}": item for name, item in parts.items()
    }


def _rl_steps(spec: Rl, flow: Flow, prompts: float) -> Estimate:
    if spec.steps is not None:
        return exact(spec.steps, "steps", "formula", "`steps`")
    epochs = spec.epochs or 0.0
    return derive(
        "steps",
        "epochs x rows / prompts of a batch",
        lambda rows: max(1.0, epochs * rows / prompts),
        rows=flow.rows,
    )


def _at_most(tokens: Estimate, limit: int) -> Estimate:
    return derive(
        "tokens", "at most `max_prompt`", lambda tokens: min(tokens, limit), tokens=tokens
    )


def _sync(steps: Estimate) -> Estimate:
    each = guess(assumptions.SYNC_S, "s", "weights to the engine")
    return derive(
        "s",
        "steps x weights to the engine",
        lambda steps, each: steps * each,
        steps=steps,
        each=each,
    )


def _generation(
    spec: Rl,
    shape: Shape,
    engine: str,
    read: Estimate,
    written: Estimate,
    length: Estimate,
    steps: Estimate,
) -> Estimate:
    """The work of all rollouts, or in each step the longest of them, whichever takes longer."""
    work = sample_seconds(shape, spec.hardware, engine, read, written, length)
    far = between(
        spec.max_response * 0.3,
        spec.max_response * 0.8,
        spec.max_response,
        "tokens",
        "assumed",
        "the longest rollout of a step",
    )
    tail = tail_seconds(shape, spec.hardware, far)
    return derive(
        "s",
        "steps x max(work, longest rollout)",
        lambda work, tail, steps: max(work, tail * steps),
        work=work,
        tail=tail,
        steps=steps,
    )
