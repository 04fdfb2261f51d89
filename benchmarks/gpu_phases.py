"""One phase of `gpu.py` in a process of its own: rows of figures, each written as soon as it is known.

python benchmarks/gpu_phases.py PHASE FOLDER
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from gpu_parts import (
    DEVICE,
    ON_GPU,
    SEED,
    Maker,
    Measured,
    Size,
    build,
    free,
    image_batch,
    lengths,
    measured,
    open_trainer,
    relative,
    row,
    sizes,
    small,
    spec_of,
    text_batch,
    wait,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as whole_cross_entropy
from torch.nn.functional import scaled_dot_product_attention

from omr_runtime.train import attention
from omr_runtime.train.attention import Segments, segment_attention, use_segment_attention
from omr_runtime.train.batching import (
    PackedBatch,
    Sample,
    make_sample,
    micro_batches,
    pack,
    shared_tokens,
    together,
)
from omr_runtime.train.logprobs import Scorer, token_logprobs
from omr_runtime.train.loop import Trainer
from omr_runtime.train.losses import Counts, cross_entropy, policy_loss
from omr_runtime.train.patches import use_patch_products
from omrlang.types import Gspo, Lora

Row: TypeAlias = dict[str, Any]
log = logging.getLogger("gpu")
RATE = 1e-6


@dataclass
class Out:
    """Where a phase writes: rows as JSON lines, a profile as text."""

    folder: Path
    phase: str

    def write(self, found: Row) -> None:
        found = {"phase": self.phase, **found}
        with (self.folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)

    @contextmanager
    def row(self, what: str) -> Iterator[None]:
        """A row that fails says so and lets the next be measured."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            self.write({"what": what, "failed": "out of memory"})
            log.warning("%s: %s", what, str(error).splitlines()[0])
        except Exception as error:
            first = str(error).partition("\n")[0]
            self.write({"what": what, "failed": f"{type(error).__name__}: {first}"})
            log.exception(what)
        free()


# ---- correctness -------------------------------------------------------------------------------------------------


def correctness(out: Out) -> None:
    """bf16 on the device against fp32 of one segment after another, which keeps to fp32 in convolutions too."""
    torch.backends.cudnn.allow_tf32 = False
    for name, check in CHECKS.items():
        with out.row(name):
            out.write({"what": name, **check()})


def _check(error: float, limit: float, **more: float) -> Row:
    return {"error": error, "limit": limit, "ok": bool(error <= limit), **more}


def _pictures(num: int) -> Tensor:
    """Text and images of 16 tokens by turns: the image of each token, 0 for text."""
    block = torch.arange(num) // 16
    return block * (block % 2)


def _seen(num: int, window: int | None, pictured: bool) -> Tensor:
    """What each token of a segment may see, written down in full."""
    at, pictures = torch.arange(num), _pictures(num)
    seen = at[:, None] >= at
    if pictured:
        seen |= (pictures[:, None] == pictures) & (pictures > 0)
    if window is not None:
        seen &= at > at[:, None] - window
    return seen.to(DEVICE)


def _attention(
    heads: int,
    kv_heads: int,
    size: int,
    causal: bool,
    parts: Sequence[int],
    window: int | None = None,
    pictured: bool = False,
) -> Row:
    """Output and gradients of the packed attention against SDPA of each segment in fp32."""
    torch.manual_seed(SEED)
    total = sum(parts)
    wide = [torch.randn(1, n, total, size, device=DEVICE) for n in (heads, kv_heads, kv_heads)]
    narrow = [x.bfloat16().requires_grad_() for x in wide]
    exact = [x.detach().float().requires_grad_() for x in narrow]
    if causal:
        pictures = torch.cat([_pictures(num) for num in parts]) if pictured else None
        segments = Segments(tuple(parts), pictures=pictures)
        kwargs: dict[str, Any] = {"segments": segments, "sliding_window": window}
        found = segment_attention(nn.Module(), *narrow, None, **kwargs)[0]
    else:
        cu = Segments(tuple(parts)).cu_seqlens(DEVICE)
        found = attention.vision_attention(nn.Module(), *narrow, None, cu_seq_lens_q=cu)[0]
    split = [torch.split(x, list(parts), dim=2) for x in exact]
    wanted = torch.cat(
        [
            scaled_dot_product_attention(
                q, k.repeat_interleave(heads // kv_heads, 1), v.repeat_interleave(heads // kv_heads, 1),
                attn_mask=_seen(q.shape[2], window, pictured) if causal else None,
            ).transpose(1, 2)
            for q, k, v in zip(*split, strict=True)
        ],
        dim=1,
    )  # fmt: skip
    pull = torch.randn_like(wanted)
    found.backward(pull.bfloat16())
    wanted.backward(pull.bfloat16().float())
    grads = [
        relative(a.grad, b.grad)
        for a, b in zip(narrow, exact, strict=True)
        if a.grad is not None and b.grad is not None
    ]
    kernel = float(attention._has_kernel(narrow[0][0].transpose(0, 1)))
    return _check(max(relative(found, wanted), *grads), 0.01, varlen_kernel=kernel)


def _losses(model: Any, samples: Sequence[Sample], packed: bool) -> tuple[Tensor, Tensor]:
    """Log-probs of all responses and the gradient of their weighted sum: packed by ours, or each alone by transformers."""
    model.zero_grad()
    if packed:
        logp_N, _ = Scorer(model)(pack(samples).to(DEVICE))
    else:
        model.set_attn_implementation("sdpa")
        logp_N = torch.cat([_alone(model, sample) for sample in samples])
    weights = torch.linspace(0.5, 1.5, len(logp_N), device=DEVICE)
    (logp_N * weights).sum().backward()
    grads = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
    return logp_N.detach(), torch.cat(grads)


def _alone(model: Any, sample: Sample) -> Tensor:
    ids = torch.tensor([sample.input_ids], device=DEVICE)
    assert sample.positions is not None
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    inputs["position_ids"] = torch.from_numpy(sample.positions)[:, None].to(DEVICE)
    inputs |= {name: x.to(DEVICE) for name, x in (sample.images or {}).items()}
    logp = torch.log_softmax(model(**inputs).logits[0].float(), -1)
    targets = ids[0, sample.num_prompt :]
    return logp[sample.num_prompt - 1 : -1].gather(1, targets[:, None])[:, 0]


def _group(maker: Maker, parts: Sequence[int], scale: int, with_image: bool) -> list[Sample]:
    """Responses to one prompt, which is read once."""
    made = maker.pictured("p", 8, 5, 3) if with_image else maker.text("p", 30 * scale, 3)
    prompt = made.input_ids[: made.num_prompt]
    samples = [
        make_sample(f"g{i}", prompt, maker.tokens(n * scale), maker.layout, made.images)
        for i, n in enumerate(parts)
    ]
    return [replace(sample, group="g") for sample in samples]


def _samples(size: Size, with_images: bool, grouped: bool) -> list[Sample]:
    maker, scale, parts = Maker(size), 16 if ON_GPU else 1, (7, 40, 3, 24, 12)
    if grouped:
        return _group(maker, parts, scale, with_images)
    samples = [maker.text(f"t{i}", 4 * scale, n * scale) for i, n in enumerate(parts)]
    if with_images:
        samples += [maker.pictured(f"i{n}", n, 4, 9 * scale) for n in (8, 4, 12)]
    return samples


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The weights alone: the frequencies of positions stay as precise as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _model(dtype: torch.dtype, with_images: bool = False, grouped: bool = False) -> Row:
    """The whole model. In bf16 the error may be half as large again as that of bf16 without packing."""
    size = small()
    samples, model = _samples(size, with_images, grouped), build(size)
    for (
        parameter
    ) in model.parameters():  # larger weights, so that a token seen by mistake would show
        if parameter.ndim == 2 and parameter.shape[1] > 1:
            parameter.data.normal_(std=1.2 * parameter.shape[1] ** -0.5)
    logp, grad = _losses(cast(model, torch.float32), samples, packed=False)
    cast(model, dtype)
    found = [_losses(model, samples, packed) for packed in (True, False)]
    errors = [max(relative(a, logp), relative(b, grad)) for a, b in found]
    limit = 2e-4 if dtype == torch.float32 else 1.5 * errors[1]
    return _check(errors[0], limit, unpacked=errors[1], loss_error=relative(found[0][0], logp))


def _masters() -> Row:
    """Ten steps of bf16 with fp32 masters, as in `Trainer`, against the same in fp32: the losses."""
    curves = []
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        size = small()
        batch = text_batch(size, 4096 if ON_GPU else 256, 300.0)
        trainer = open_trainer(
            build(size).to(dtype), spec_of("sft", 4096, False, precision=precision)
        )
        curves.append([trainer.step([batch], _sft_loss(batch), 1e-4)[0] for _ in range(10)])
        free()
    low, full = (torch.tensor(curve) for curve in curves)
    fell = float(full[0] - full[-1])
    return _check(float((low - full).abs().max()) / fell, 0.05, fell=fell)


def _head() -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(SEED)
    rows, hidden, vocab = (8192, 2048, 151_936) if ON_GPU else (300, 64, 512)
    with torch.device(DEVICE):
        head = nn.Linear(hidden, vocab, bias=False, dtype=torch.bfloat16)
        x = torch.randn(rows, hidden, dtype=torch.bfloat16).requires_grad_()
        targets = torch.randint(vocab, (rows,))
    return head, x, targets


def _scored(head: nn.Linear, x: Tensor, targets: Tensor, fused: bool) -> Tensor:
    head.zero_grad()
    x.grad = None
    logp_N, _ = token_logprobs(head, x, targets, head.out_features, 1.0, fused)
    (logp_N * torch.linspace(0.5, 1.5, len(x), device=DEVICE)).sum().backward()
    return logp_N.detach()


def _logprobs() -> Row:
    """Fused against fp32 on the same weights, a part of the rows at a time; time and memory of both."""
    head, x, targets = _head()
    found = _scored(head, x, targets, True)
    assert x.grad is not None
    grads = x.grad, head.weight.grad
    exact_head = nn.Linear(head.in_features, head.out_features, bias=False, device=DEVICE)
    exact_head.weight.data.copy_(head.weight.data)
    weights = torch.linspace(0.5, 1.5, len(x), device=DEVICE)
    wanted, wanted_grads = [], []
    for rows in torch.arange(len(x), device=DEVICE).split(1024):
        part = x.detach()[rows].float().requires_grad_()
        logp = torch.log_softmax(exact_head(part), -1).gather(1, targets[rows, None])[:, 0]
        (logp * weights[rows]).sum().backward()
        wanted.append(logp.detach())
        wanted_grads.append(part.grad)
    errors = [relative(found, torch.cat(wanted)), relative(grads[0], torch.cat(wanted_grads))]
    assert grads[1] is not None
    assert exact_head.weight.grad is not None
    errors.append(relative(grads[1], exact_head.weight.grad))
    return _check(max(errors), 0.01, logp_error=errors[0], weight_grad_error=errors[2])


def _logprob_cost() -> Row:
    """Seconds and memory beside what was there before, fused and whole. Fused holds less than all logits in bf16."""
    head, x, targets = _head()
    before = torch.cuda.memory_allocated() / 2**30 if ON_GPU else 0.0
    fused = measured(lambda: _scored(head, x, targets, True))
    free()
    whole = measured(lambda: _scored(head, x, targets, False))
    grads = (head.weight.numel() + x.numel()) * 2 / 2**30
    limit = len(x) * head.out_features * 2 / 2**30
    return _check(
        max(0.0, fused.allocated - before - grads), limit,
        fused_s=fused.seconds, whole_s=whole.seconds, whole_gib=max(0.0, whole.allocated - before),
        fused_tflops=8 * len(x) * head.weight.numel() / fused.seconds / 1e12,
    )  # fmt: skip


def _patches() -> Row:
    """The tower's first layer: seconds of transformers' convolution and of ours."""
    size = small()
    model = build(size).model.visual.patch_embed
    side, inputs = 64 if ON_GPU else 8, []
    x = torch.randn(side * side, model.proj.weight[0].numel(), device=DEVICE, dtype=torch.bfloat16)

    def run() -> None:
        model.zero_grad()
        inputs[:] = [model(x)]
        inputs[0].sum().backward()

    plain = measured(run)
    wanted = inputs[0].detach()
    whole = build(size)
    Scorer(whole)
    model = whole.model.visual.patch_embed
    ours = measured(run)
    return _check(relative(inputs[0], wanted), 0.01, plain_s=plain.seconds, ours_s=ours.seconds)


MIXED = (1, 7, 2000, 130, 64, 511, 3, 900) if ON_GPU else (1, 7, 40, 53)
WINDOWS = (64,) * 200 + (32,) * 16 + (16, 4096) if ON_GPU else (16,) * 5 + (8, 4, 40)
CHECKS: dict[str, Callable[[], Row]] = {
    "attention, grouped keys": lambda: _attention(16, 2, 128, True, MIXED),
    "attention, a sliding window": lambda: _attention(8, 4, 256, True, MIXED, window=32),
    "attention, images that see themselves": lambda: _attention(
        8, 4, 256, True, MIXED, window=32, pictured=True
    ),
    "attention, windows of a tower": lambda: _attention(16, 16, 80, False, WINDOWS),
    "fp32 model, text": lambda: _model(torch.float32),
    "fp32 model, images": lambda: _model(torch.float32, True),
    "fp32 model, one prompt": lambda: _model(torch.float32, True, True),
    "bf16 model, text": lambda: _model(torch.bfloat16),
    "bf16 model, images": lambda: _model(torch.bfloat16, True),
    "bf16 model, one prompt": lambda: _model(torch.bfloat16, False, True),
    "bf16 model, one prompt with an image": lambda: _model(torch.bfloat16, True, True),
    "bf16 with fp32 masters": _masters,
    "fused log-probs": _logprobs,
    "fused log-probs, cost": _logprob_cost,
    "patches of images": _patches,
}


# ---- supervised --------------------------------------------------------------------------------------------------


def _sft_loss(*batches: PackedBatch) -> Callable[[PackedBatch, Tensor, Tensor], Tensor]:
    weighted = float(sum(batch.num_weighted for batch in batches))
    return lambda batch, logp_N, entropy_N: cross_entropy(logp_N, batch.weight, weighted)


def _bare(model: Any, batch: PackedBatch, recompute: bool) -> Measured:
    """Forward and backward alone: the same attention and first layer of the tower, all logits, the usual loss, gradients in bf16, no optimiser."""
    use_segment_attention(model)
    use_patch_products(model)
    _recompute(model, recompute)
    model.train()
    labels = torch.full_like(batch.input_ids[0], -100)
    labels[batch.predict] = batch.targets

    def run() -> None:
        logits = model(**batch.model_inputs()).logits[0]
        whole_cross_entropy(logits.float(), labels).backward()
        model.zero_grad(set_to_none=True)

    return measured(run)


def _recompute(model: Any, on: bool) -> None:
    if on:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def sft_bare(out: Out) -> None:
    """The limit: before there is an optimiser, which would leave no room for all logits."""
    size = sizes()["3b"]
    model = build(size)
    for what, batch, recompute in _sft_cases(size):
        with out.row(f"bare, {what}"):
            out.write(row(f"bare, {what}", size, [batch], _bare(model, batch, recompute)))
            del batch


def _sft_cases(size: Size) -> Iterator[tuple[str, PackedBatch, bool]]:
    unit = 1024 if ON_GPU else 16
    yield "text, recompute", text_batch(size, 16 * unit), True
    yield "text, short pack", text_batch(size, 2 * unit, 400.0), False
    yield "images, recompute", image_batch(size, 16 * unit, 64 if ON_GPU else 8), True


def sft_full(out: Out) -> None:
    """All weights of the 3B model: fp32 masters, moments and gradient sums beside bf16 weights."""
    size = sizes()["3b"]
    model = build(size)
    trainer = open_trainer(model, spec_of("sft", 16_384, True))
    for what, batch, recompute in _sft_cases(size):
        _sft_rows(out, what, size, trainer, batch, recompute)
    with out.row("profile"):
        _profile(out, trainer, text_batch(size, 16_384 if ON_GPU else 256))
    for tokens, recompute in ((24, True), (4, False), (32, True), (40, True)) if ON_GPU else ():
        what = f"text, {tokens}k{', recompute' if recompute else ''}"
        _sft_rows(out, what, size, trainer, text_batch(size, 1024 * tokens), recompute, few=True)


def _sft_rows(
    out: Out,
    what: str,
    size: Size,
    trainer: Trainer,
    batch: PackedBatch,
    recompute: bool,
    few: bool = False,
    **more: Any,
) -> None:
    """A step of one micro-batch and one of three: their difference is two passes, the rest the optimiser."""
    spec = trainer.spec.model_copy(update={"pack": batch.num_tokens, "recompute": recompute})
    _recompute(trainer.model, recompute)
    assert trainer.optimizer is not None
    trainer.optimizer.zero_grad()  # of a row that failed
    with out.row(what):
        if few:
            found = measured(lambda: trainer.step([batch], _sft_loss(batch), RATE), repeats=1)
            out.write(row(f"{what}, step of 1", size, [batch], found, spec, **more))
            return
        one = measured(lambda: trainer.step([batch], _sft_loss(batch), RATE))
        three = [batch] * 3
        found = measured(lambda: trainer.step(three, _sft_loss(*three), RATE), warm=0)
        each = replace(found, seconds=(found.seconds - one.seconds) / 2)
        out.write(row(f"{what}, step of 3", size, three, found, spec, **more))
        out.write(
            row(what, size, [batch], each, spec, optimizer_s=one.seconds - each.seconds, **more)
        )


def _profile(out: Out, trainer: Trainer, batch: PackedBatch) -> None:
    """Where the time of one step goes, as a table."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if ON_GPU:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    _recompute(trainer.model, True)
    with torch.profiler.profile(activities=kinds) as profile:
        trainer.step([batch], _sft_loss(batch), RATE)
        wait()
    order = "self_cuda_time_total" if ON_GPU else "self_cpu_time_total"
    table = profile.key_averages().table(sort_by=order, row_limit=45, max_name_column_width=90)
    (out.folder / "profile.txt").write_text(table)


# ---- the 7B model, of which a part is trained ----------------------------------------------------------------------

RANK = 16


def sft_part(out: Out) -> None:
    """The 7B model with the adapters that a recipe's `adapter = lora(…)` gives it."""
    size, unit = sizes()["7b"], 1024 if ON_GPU else 16
    adapter = Lora(rank=RANK, alpha=2.0 * RANK)
    cases = [(16 * unit, True), (6 * unit, False), (64 * unit, True)]
    trainer = open_trainer(build(size), spec_of("sft", cases[0][0], True, adapter=adapter))
    for tokens, recompute in cases:
        what = f"adapters, {tokens}{', recompute' if recompute else ''}"
        batch = text_batch(size, tokens)
        _sft_rows(
            out, what, size, trainer, batch, recompute, few=True, trained=False, lora=RANK
        )  # fmt: skip


# ---- reinforcement -----------------------------------------------------------------------------------------------

ALGORITHM = Gspo(clip=(3e-4, 4e-4))
PROMPTS, GROUP = (4, 16) if ON_GPU else (2, 4)
PROMPT_TOKENS = 512 if ON_GPU else 16
MEDIAN, SIGMA, MOST = (700.0, 0.9, 4096) if ON_GPU else (20.0, 0.9, 100)
BUDGET = 18_432 if ON_GPU else 256


class Padded(nn.Module):
    """Log-probs of a batch whose segments all have the same length, as rows of a matrix under a mask of the padding."""

    def __init__(self, model: Any, mask: Callable[[PackedBatch], Tensor]) -> None:
        super().__init__()
        self.inner = [model]
        self.mask = mask

    def forward(self, batch: PackedBatch, temperature: float) -> tuple[Tensor, Tensor]:
        (model,) = self.inner
        rows, width = batch.num_samples, batch.segments.lengths[0]
        hidden = model.base_model(
            input_ids=batch.input_ids.view(rows, width),
            attention_mask=self.mask(batch),
            position_ids=batch.position_ids[1:].reshape(3, rows, width),
            use_cache=False,
        ).last_hidden_state
        head = model.get_output_embeddings()
        chosen = hidden.reshape(rows * width, -1).index_select(0, batch.predict)
        return token_logprobs(head, chosen, batch.targets, head.out_features, temperature)


def rl(out: Out) -> None:
    """One GSPO update of the 3B model by packed batches, and by batches padded to the longest as TRL's trainer makes them."""
    size = sizes()["3b"]
    maker, drawn = Maker(size), lengths(PROMPTS * GROUP, MEDIAN, SIGMA, MOST)
    prompts = [maker.tokens(PROMPT_TOKENS) for _ in range(PROMPTS)]
    trainer = open_trainer(build(size), spec_of("rl", BUDGET, True))
    (mine,) = micro_batches([PROMPT_TOKENS + n for n in drawn], BUDGET, 1)
    samples = [_rollout(maker, i, prompts[i // GROUP], n, n) for i, n in enumerate(drawn)]
    packed = [pack([samples[i] for i in one]).to(DEVICE) for one in mine]
    width = max(drawn)
    wide = [_rollout(maker, i, prompts[i // GROUP], n, width) for i, n in enumerate(drawn)]
    rows = max(1, BUDGET // (PROMPT_TOKENS + width))
    shared = _shared(samples)
    padded = [
        _padded(wide[at : at + rows], drawn[at : at + rows], drawn)
        for at in range(0, len(wide), rows)
    ]
    note = {"rows": len(drawn), "sigma": SIGMA, "longest": width, "mean": sum(drawn) / len(drawn)}
    _rl_row(out, "packed", size, trainer, packed, packed, drawn, **note)
    _rl_row(out, "packed, prompts read once", size, trainer, shared, packed, drawn, **note)
    _rl_row(out, "padded, our attention", size, trainer, padded, packed, drawn, **note)
    trainer.model.set_attn_implementation("sdpa")
    trainer.scorer = Padded(trainer.model, _mask)  # type: ignore[assignment]
    _rl_row(out, "padded, SDPA with a mask", size, trainer, padded, packed, drawn, **note)


def _rollout(maker: Maker, i: int, prompt: Sequence[int], real: int, width: int) -> Sample:
    """The same tokens for the same rollout, whatever stands after them."""
    ids = [*Maker(maker.size, seed=i).tokens(real), *([0] * (width - real))]
    return make_sample(f"r{i}", prompt, ids, maker.layout)


def _shared(samples: Sequence[Sample]) -> list[PackedBatch]:
    """As `Policy` packs them: the prompt of a group stands once in a batch."""
    grouped = [replace(s, group=f"g{i // GROUP}") for i, s in enumerate(samples)]
    units = [[grouped[i] for i in unit] for unit in together(grouped, BUDGET)]
    (mine,) = micro_batches([shared_tokens(unit) for unit in units], BUDGET, 1)
    return [pack([sample for k in one for sample in units[k]]).to(DEVICE) for one in mine]


def _padded(samples: Sequence[Sample], real: Sequence[int], every: Sequence[int]) -> PackedBatch:
    """Rows of the same length; what is filled up has weight 0."""
    batch = pack(samples)
    width = max(every)
    weight = torch.cat([(torch.arange(width) < n).float() for n in real])
    return replace(batch, weight=weight).to(DEVICE)


def _mask(batch: PackedBatch) -> Tensor:
    rows, width = batch.num_samples, batch.segments.lengths[0]
    mask = torch.ones(rows, width, dtype=torch.long, device=DEVICE)
    mask[:, PROMPT_TOKENS:] = batch.weight.view(rows, -1).long()
    return mask


def _rl_row(
    out: Out,
    what: str,
    size: Size,
    trainer: Trainer,
    batches: Sequence[PackedBatch],
    real: Sequence[PackedBatch],
    drawn: Sequence[int],
    **note: Any,
) -> None:
    """Tokens, utilisation and the plan are of the real tokens, ``real``; a rate of 0 keeps the weights for the next row."""
    spec = spec_of("rl", BUDGET, True)
    counts = Counts(len(drawn), sum(drawn))
    advantage = torch.linspace(-1, 1, len(drawn), device=DEVICE)

    def loss_of(batch: PackedBatch, logp_N: Tensor, entropy_N: Tensor) -> Tensor:
        which = torch.tensor([int(name[1:]) for name in batch.ids], device=DEVICE)
        return policy_loss(
            ALGORITHM, logp_N, None, advantage[which], batch.segment, batch.weight, counts
        ).loss

    seen: list[float] = []
    with out.row(what):
        trainer.step(batches[:1], loss_of, 0.0)
        found = measured(lambda: seen.extend(trainer.step(batches, loss_of, 0.0)), 1, warm=0)
        forward = sum(batch.num_tokens for batch in batches)
        more = {"passed_tokens": forward, "micro_batches": len(batches), "grad_norm": seen[1]}
        out.write(row(what, size, real, found, spec, **more, **note))


PHASES: dict[str, Callable[[Out], None]] = {
    "correctness": correctness,
    "sft_bare": sft_bare,
    "sft_full": sft_full,
    "sft_part": sft_part,
    "rl": rl,
}


def main(phase: str, folder: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    torch.backends.cuda.matmul.allow_tf32 = False
    PHASES[phase](Out(Path(folder), phase))


if __name__ == "__main__":
    main(*sys.argv[1:])
