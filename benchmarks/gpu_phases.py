"""One phase of `gpu.py` in a process of its own: rows of figures, each written as soon as it is known.

python benchmarks/gpu_phases.py PHASE FOLDER
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_checks import correctness
from gpu_parts import (
    DEVICE,
    ON_GPU,
    RATE,
    Maker,
    Measured,
    Out,
    Size,
    build,
    image_batch,
    lengths,
    measured,
    open_trainer,
    row,
    sft_loss,
    sizes,
    spec_of,
    text_batch,
    wait,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as whole_cross_entropy

from omr_runtime.train.attention import use_segment_attention
from omr_runtime.train.batching import (
    PackedBatch,
    Sample,
    make_sample,
    micro_batches,
    pack,
    shared_tokens,
    together,
)
from omr_runtime.train.logprobs import token_logprobs
from omr_runtime.train.loop import Trainer
from omr_runtime.train.losses import Counts, policy_loss
from omr_runtime.train.patches import use_patch_products
from omrlang.types import Gspo, Lora

# ---- supervised --------------------------------------------------------------------------------------------------


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
            found = measured(lambda: trainer.step([batch], sft_loss(batch), RATE), repeats=1)
            out.write(row(f"{what}, step of 1", size, [batch], found, spec, **more))
            return
        one = measured(lambda: trainer.step([batch], sft_loss(batch), RATE))
        three = [batch] * 3
        found = measured(lambda: trainer.step(three, sft_loss(*three), RATE), warm=0)
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
        trainer.step([batch], sft_loss(batch), RATE)
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
    tokens = [PROMPT_TOKENS + n for n in drawn]
    (mine,) = micro_batches(tokens, tokens, BUDGET, 1)
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
    tokens = [shared_tokens(unit) for unit in units]
    (mine,) = micro_batches(tokens, tokens, BUDGET, 1)
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
