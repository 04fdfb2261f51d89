"""What the packed step computes on a GPU, against fp32 of one segment after another: errors, limits, and what fusing saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from gpu_parts import (
    DEVICE,
    ON_GPU,
    SEED,
    Maker,
    Out,
    Row,
    Size,
    build,
    free,
    measured,
    open_trainer,
    relative,
    sft_loss,
    small,
    spec_of,
    text_batch,
)
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from omr_runtime.train import attention
from omr_runtime.train.attention import Segments, segment_attention
from omr_runtime.train.batching import Sample, make_sample, pack
from omr_runtime.train.logprobs import Scorer, token_logprobs


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
        curves.append([trainer.step([batch], sft_loss(batch), 1e-4)[0] for _ in range(10)])
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
