"""An ``sft`` or ``rl`` stage becomes its steps, tokens and seconds."""

from __future__ import annotations

from dataclasses import dataclass

from omrlang.estimate import assumptions
from omrlang.estimate.compute import (
    of_shape,
    overhead_seconds,
    passes,
    sample_seconds,
    start_seconds,
    tail_seconds,
    train_seconds,
)
from omrlang.estimate.disk import checkpoints_on_disk
from omrlang.estimate.jobs import on_cpu
from omrlang.estimate.ranges import (
    added,
    between,
    derive,
    exact,
    product,
    ratio,
    setting,
    unknown,
)
from omrlang.estimate.refill import refilling
from omrlang.estimate.rows import Flow, Past, guess
from omrlang.estimate.tokens import prompt_tokens, response_tokens, row_tokens, row_visual_tokens
from omrlang.estimate.watching import watching
from omrlang.flops import passes_a_parameter
from omrlang.plan import Estimate
from omrlang.schema import Rl, Sft
from omrlang.settle import (
    beyond_batch,
    continues,
    drawing_engine,
    drawing_hardware,
    engine_apart,
    gpus_of_an_engine,
    has_reference,
    num_devices,
    pass_tokens,
    prompts_asked,
    ratio_to_engine,
    settled_amount,
    updates_per_batch,
)
from omrlang.types import Amount, Shape

WATCH = "watch"
"""The part of the seconds that validation takes."""
GENERATION, LEARNING = "generation", ("old log-probs", "reference", "update")
"""The parts of a step that `behind` puts beside each other."""


@dataclass(frozen=True, slots=True)
class Work:
    """``tokens`` go through the trainer, of which ``images`` stand for images; ``rows_out`` is what it learns from; ``response`` how long the model then writes."""

    tokens: Estimate
    seconds: Estimate
    rows_out: Estimate
    response: Estimate | None
    images: Estimate
    extra: dict[str, Estimate]


def sft_work(spec: Sft, flow: Flow, shape: Shape | None) -> Work:
    """Steps or epochs, whichever was not given, follows from the rows' tokens and the packs."""
    each = row_tokens(spec, flow, shape)
    tokens, steps, epochs = _sft_length(spec, flow, each)
    share = _image_share(spec, flow, shape, "image tokens of a row", each)
    parts = {"train": train_seconds(spec, shape, tokens, each, share)}
    seconds = _with_start(spec, parts, passes(spec, tokens, spec.pack))
    extra = {
        "steps": steps,
        "epochs": epochs,
        "warmup": _warmup(spec, steps),
        "tokens_per_row": each,
        "checkpoints": checkpoints_on_disk(spec, steps, shape),
    }
    if flow.pixels is not None:
        extra["image_rows"] = flow.pictured
    return Work(tokens, seconds, flow.rows, flow.response, share, extra)


def _sft_length(spec: Sft, flow: Flow, each: Estimate) -> tuple[Estimate, Estimate, Estimate]:
    """Tokens that are trained on, steps and epochs; ``each`` is of one row."""
    rows = derive("tokens", "rows x tokens of a row", product, rows=flow.rows, row=each)
    batch = settled_amount(spec.batch, num_devices(spec))
    per_step = _tokens_a_step(spec, batch, each)
    if spec.steps is not None:
        steps = setting(spec.steps, "steps", "steps")
        tokens = derive("tokens", "steps x tokens of a batch", product, steps=steps, batch=per_step)
        return tokens, steps, ratio("epochs", "tokens / tokens of the rows", tokens, rows)
    epochs = setting(spec.epochs or 0.0, "epochs", "epochs")
    tokens = derive("tokens", "epochs x tokens of the rows", product, epochs=epochs, rows=rows)
    return tokens, _at_least_one("tokens / tokens of a batch", tokens, per_step), epochs


def _warmup(spec: Sft | Rl, steps: Estimate) -> Estimate:
    """Steps until the learning rate is at its peak."""
    warmup = spec.lr.warmup
    if warmup.unit == "steps":
        return setting(warmup.value, "steps", "warmup")
    share = setting(warmup.value, "", "warmup")
    return derive("steps", "steps x share that warms up", product, steps=steps, share=share)


def _at_least_one(formula: str, work: Estimate, batch: Estimate) -> Estimate:
    return derive(
        "steps",
        formula,
        lambda work, batch: max(1.0, work / batch),
        falling=["batch"],
        work=work,
        batch=batch,
    )


def _image_share(
    spec: Sft | Rl, flow: Flow, shape: Shape | None, formula: str, each: Estimate
) -> Estimate:
    """Of the tokens of one row or rollout those that stand for images."""
    visual = row_visual_tokens(flow, shape, spec.min_pixels, spec.max_pixels)
    return derive(
        "",
        formula,
        lambda visual, each: min(1.0, visual / each) if each else 0.0,
        falling=["each"],
        visual=visual,
        each=each,
    )


def _tokens_a_step(spec: Sft, batch: Amount, each: Estimate) -> Estimate:
    """Tokens of one optimiser step: packs, all but full, or rows."""
    if batch.unit == "rows":
        rows = setting(batch.value, "rows", "batch")
        return derive("tokens", "rows of a batch x tokens of a row", product, rows=rows, row=each)
    packs, pack = setting(batch.value, "packs", "batch"), setting(spec.pack, "tokens", "pack")
    if spec.steps is not None:
        return derive("tokens", "packs x pack, at most", product, packs=packs, pack=pack)
    fill = guess(assumptions.PACK_FILL, "", "how full packs are")
    return derive("tokens", "packs x pack x fill", product, packs=packs, pack=pack, fill=fill)


def _with_start(spec: Sft | Rl, parts: dict[str, Estimate], count: Estimate) -> Estimate:
    parts = {"start": start_seconds("torch"), **parts}
    if on_cpu(spec):
        parts["passes"] = overhead_seconds(count)
    return added("s", " + ".join(parts), parts)


@dataclass(frozen=True, slots=True)
class _Rollouts:
    """What RL writes and reads, over all steps: ``number`` rollouts, of which ``learned`` are trained on. ``rounds`` are of
    one step, ``length`` of one rollout with its prompt."""

    steps: Estimate
    rounds: Estimate
    number: Estimate
    learned: Estimate
    read: Estimate
    written: Estimate
    tokens: Estimate
    length: Estimate
    prompt: Estimate
    response: Estimate
    refilled: dict[str, Estimate]

    @property
    def extra(self) -> dict[str, Estimate]:
        return {
            "steps": self.steps,
            "rollouts": self.number,
            **self.refilled,
            "prompt_tokens": self.read,
            "response_tokens": self.written,
            "tokens_per_row": self.length,
        }


def rl_work(
    spec: Rl,
    flow: Flow,
    watched: Flow | None,
    shape: Shape | None,
    engine: str,
    past: Past,
    like: Estimate | None,
) -> Work:
    """Steps x (generation with its tail + old log-probs and those of a reference where they are needed + update + weights to
    the engine), and the validation over ``watched``."""
    made = _rollouts(spec, flow, shape, past, like)
    prompts = setting(settled_amount(spec.batch, num_devices(spec)).value, "prompts", "batch")
    a_pass = ratio("steps", "rows / prompts of a batch", flow.rows, prompts)
    extra = {
        **made.extra,
        "warmup": _warmup(spec, made.steps),
        "steps_per_epoch": a_pass,
        "epochs": ratio("epochs", "steps / steps of a pass over the rows", made.steps, a_pass),
        "checkpoints": checkpoints_on_disk(spec, made.steps, shape),
    }
    looked = (
        watching(spec, spec.watch, watched, made.steps, made.response, shape, engine)
        if spec.watch is not None and watched is not None
        else None
    )
    if looked is not None:
        extra |= {"looks": looked.looks, "watch_answers": looked.answers}
    share = _image_share(spec, flow, shape, "image tokens of a rollout", made.length)
    if shape is None:
        why = unknown("s", "the model's shape is not declared")
        return Work(made.tokens, why, made.learned, made.response, share, extra)
    parts = _rl_parts(spec, shape, engine, made, share)
    if looked is not None and looked.seconds is not None:
        parts[WATCH] = looked.seconds
    whole = _beside(parts, spec) if spec.behind else parts
    seconds = _with_start(spec, whole, passes(spec, made.tokens, pass_tokens(spec)))
    extra |= _named(parts)
    return Work(made.tokens, seconds, made.learned, made.response, share, extra)


def _rollouts(
    spec: Rl, flow: Flow, shape: Shape | None, past: Past, like: Estimate | None
) -> _Rollouts:
    prompts = setting(settled_amount(spec.batch, num_devices(spec)).value, "prompts", "batch")
    group = setting(spec.group, "rollouts", "group")
    steps = _rl_steps(spec, flow, prompts)
    learned = derive(
        "rollouts", "steps x prompts x group", product, steps=steps, prompts=prompts, group=group
    )
    refill = refilling(spec, prompts, group, steps, learned, past)
    visual = row_visual_tokens(flow, shape, spec.min_pixels, spec.max_pixels)
    prompt = _at_most(prompt_tokens(flow, spec.prompt, visual), spec.max_prompt)
    response = response_tokens(spec, past, like)
    read = derive(
        "tokens",
        "rollouts x prompt / group (a prompt is read once)",
        lambda rollouts, prompt, group: rollouts * prompt / group,
        falling=["group"],
        rollouts=refill.rollouts,
        prompt=prompt,
        group=group,
    )
    length = added("tokens", "prompt + response", {"prompt": prompt, "response": response})
    written = derive(
        "tokens", "rollouts x response", product, rollouts=refill.rollouts, response=response
    )
    tokens = derive("tokens", "rollouts x length", product, rollouts=learned, length=length)
    return _Rollouts(
        steps=steps,
        rounds=refill.rounds,
        number=refill.rollouts,
        learned=learned,
        read=read,
        written=written,
        tokens=tokens,
        length=length,
        prompt=prompt,
        response=response,
        refilled=refill.extra,
    )


def _rl_parts(
    spec: Rl, shape: Shape, engine: str, made: _Rollouts, share: Estimate
) -> dict[str, Estimate]:
    """The seconds of each part of a step, over all steps."""
    update = _update(spec, shape, made, share)
    generation = _generation(spec, shape, engine, made)
    parts = {GENERATION: generation, "update": update, "sync": _sync(spec, shape, made.steps)}
    forward = _forward_alone(spec, update)
    if updates_per_batch(spec) > 1 and not ratio_to_engine(spec):
        parts["old log-probs"] = forward
    if has_reference(spec):
        parts["reference"] = forward
    return parts


def _forward_alone(spec: Rl, update: Estimate) -> Estimate:
    """Seconds to score all rollouts once more, without a gradient."""
    each = passes_a_parameter(spec)
    part = exact(2 / each, "", "formula", "a forward pass of forward and backward")
    what = "a third" if each == 6 else f"2/{each:g}"
    return derive("s", f"{what} of update", product, update=update, third=part)


def _beside(parts: dict[str, Estimate], spec: Rl) -> dict[str, Estimate]:
    """Generation while the batch before is learned. On devices of their own the longer one counts. On one device each takes
    from the other what it needs, and only what the device has to spare is saved."""
    learning = {name: parts[name] for name in LEARNING if name in parts}
    others = {k: part for k, part in parts.items() if k != GENERATION and k not in learning}
    learned = added("s", " + ".join(learning), learning)
    if drawing_hardware(spec) != spec.hardware:
        both = derive(
            "s",
            "the longer of generation and learning, each on GPUs of its own",
            lambda generation, learning: max(generation, learning),
            generation=parts[GENERATION],
            learning=learned,
        )
        return {"generation beside learning": both, **others}
    both = derive(
        "s",
        "generation + learning - share that is hidden x the shorter of them",
        lambda generation, learning, hidden: (
            generation + learning - hidden * min(generation, learning)
        ),
        falling=["hidden"],
        generation=parts[GENERATION],
        learning=learned,
        hidden=guess(assumptions.HIDDEN, "", "what a shared device does besides"),
    )
    return {"generation beside learning": both, **others}


def _update(spec: Rl, shape: Shape, made: _Rollouts, share: Estimate) -> Estimate:
    """Forward and backward over every rollout; those of a group that one pass holds read their prompt, and its images, once."""
    readers = derive(
        "rollouts",
        "rollouts of a group in one pass: at most group, at least 1, else (tokens of a pass - prompt) / response",
        lambda room, prompt, response, group: max(1.0, min(group, (room - prompt) / response)),
        falling=["prompt", "response"],
        room=setting(pass_tokens(spec), "tokens", "a pass"),
        prompt=made.prompt,
        response=made.response,
        group=setting(spec.group, "rollouts", "group"),
    )
    each = derive(
        "tokens",
        "prompt / readers + response",
        lambda prompt, readers, response: prompt / readers + response,
        falling=["readers"],
        prompt=made.prompt,
        readers=readers,
        response=made.response,
    )
    tokens = derive("tokens", "rollouts x tokens of one", product, rollouts=made.learned, each=each)
    images = derive(
        "",
        "image tokens of a rollout with its part of the prompt",
        lambda share, length, readers, each: min(1.0, share * length / readers / each),
        falling=["readers", "each"],
        share=share,
        length=made.length,
        readers=readers,
        each=each,
    )
    return train_seconds(spec, shape, tokens, made.length, images)


def _named(parts: dict[str, Estimate]) -> dict[str, Estimate]:
    return {
        f"seconds_{name.replace(' ', '_').replace('-', '_')}": item for name, item in parts.items()
    }


def _rl_steps(spec: Rl, flow: Flow, prompts: Estimate) -> Estimate:
    if spec.steps is not None:
        return setting(spec.steps, "steps", "steps")
    epochs = setting(spec.epochs or 0.0, "epochs", "epochs")
    work = derive("rows", "epochs x rows", product, epochs=epochs, rows=flow.rows)
    if spec.oversample is not None and not continues(spec):
        asked = setting(prompts_asked(spec), "prompts", "batch + oversample")
        return _at_least_one("epochs x rows / prompts of a step", work, asked)
    return _at_least_one("epochs x rows / prompts of a batch", work, prompts)


def _at_most(tokens: Estimate, limit: int) -> Estimate:
    return derive(
        "tokens",
        "at most the limit (longer prompts are dropped)",
        lambda tokens, limit: min(tokens, limit),
        tokens=tokens,
        limit=setting(limit, "tokens", "max_prompt"),
    )


def _sync(spec: Rl, shape: Shape, steps: Estimate) -> Estimate:
    if engine_apart(spec) is not None:
        return derive(
            "s",
            "steps x bytes of the weights / rate of a push",
            lambda steps, size, rate: steps * size / rate,
            falling=["rate"],
            steps=steps,
            size=of_shape(shape, 2.0 * shape.num_params, "bytes", "in bf16"),
            rate=guess(assumptions.PUSH_BYTES_PER_S, "B/s", "from process to process"),
        )
    each = guess(assumptions.SYNC_S, "s", "weights to the engine")
    return derive("s", "steps x weights to the engine", product, steps=steps, each=each)


def _waited(spec: Rl, tail: Estimate) -> Estimate:
    """With ``oversample`` a step ends when its batch has ended: of so many under way, each as long as the longest of its group, a
    step sees the share that it learns from (Little's law)."""
    if spec.oversample is None:
        return tail
    batch = settled_amount(spec.batch, num_devices(spec)).value
    return derive(
        "s",
        "longest rollout x batch / (batch + oversample)",
        lambda tail, batch, more: tail * batch / (batch + more),
        falling=["more"],
        tail=tail,
        batch=setting(batch, "prompts", "batch"),
        more=setting(beyond_batch(spec), "prompts", "oversample"),
    )


def _generation(spec: Rl, shape: Shape, engine: str, made: _Rollouts) -> Estimate:
    """The work of all rollouts, or in each round the longest of them, whichever takes longer."""
    hardware, split = drawing_hardware(spec), gpus_of_an_engine(spec)
    given = (made.read, made.written, made.length, split, drawing_engine(spec, engine))
    work = sample_seconds(shape, hardware, engine, *given)
    far = between(
        spec.max_response * 0.3,
        spec.max_response * 0.8,
        spec.max_response,
        "tokens",
        "assumed",
        "the longest rollout of a round: 80% of `max_response`",
    )
    tail = _waited(spec, tail_seconds(shape, hardware, far, split))
    return derive(
        "s",
        "steps x max(work, rounds x longest rollout)",
        lambda work, tail, steps, rounds: max(work, tail * steps * rounds),
        work=work,
        tail=tail,
        steps=made.steps,
        rounds=made.rounds,
    )
