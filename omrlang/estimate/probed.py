"""What ``omr probe`` measured of a slice becomes the numbers of the whole stage, and of stages of the same shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from omrlang.estimate.history import like
from omrlang.estimate.jobs import with_peak
from omrlang.estimate.ranges import between, derive, exact, product
from omrlang.estimate.rows import Flow, Past
from omrlang.estimate.training import Work
from omrlang.plan import Estimate, Memory
from omrlang.schema import Eval, Rl, Sample, Sft
from omrlang.settle import pass_tokens
from omrlang.state import Index, Probe
from omrlang.types import Fsdp, Model, Zero

TOKENS_SPREAD = 1.1
"""Of the tokens of one unit: a slice is not the whole."""

MEMORY_SPREAD = 1.15
"""Of a peak that another stage of the same shape had."""


def shape(spec: Sample | Sft | Rl | Eval, root: Model) -> str:
    """What must be equal for a measured peak to carry over: what a speed hangs on, and what one pass holds."""
    if isinstance(spec, Sample | Eval):
        held = (spec.max_tokens, spec.min_pixels, spec.max_pixels)
        return json.dumps([like(spec, root), held])
    cut: object = spec.sharding.stage if isinstance(spec.sharding, Zero) else 0
    if isinstance(spec.sharding, Fsdp):
        cut = spec.sharding.model_dump()
    fused = spec.loss.fused if isinstance(spec, Sft) else True
    rollouts = (spec.batch.model_dump(), spec.group) if isinstance(spec, Rl) else None
    held_in_training = (pass_tokens(spec), cut, fused, spec.min_pixels, spec.max_pixels, rollouts)
    return json.dumps([like(spec, root), held_in_training])


def own_probe(past: Past, spec: Sample | Sft | Rl | Eval, root: Model | None) -> Probe | None:
    """The probe of this very stage, unless it was on another machine or under another engine."""
    probe = past.probe
    same = probe is not None and root is not None and probe.like == like(spec, root)
    return probe if same else None


def probed_tokens(probe: Probe) -> Estimate:
    """Tokens of one unit of the probe."""
    each = probe.tokens / probe.units
    said = f"probe of `{probe.name}`: {probe.tokens:,.0f} tokens in {probe.units:,.0f}"
    return between(each / TOKENS_SPREAD, each, each * TOKENS_SPREAD, "tokens", "calibrated", said)


def with_probed(work: Work, spec: Sft | Rl, rows: Flow, probe: Probe | None) -> Work:
    """The work with the tokens that the probe's units had: steps where the training is so many, else rows."""
    if probe is None:
        return work
    each = probed_tokens(probe)
    if spec.steps is not None:
        steps = work.extra["steps"]
        tokens = derive("tokens", "steps x tokens of a step", product, steps=steps, each=each)
    else:
        epochs = work.extra["epochs"]
        formula = "epochs x rows x tokens of a row"
        tokens = derive("tokens", formula, product, epochs=epochs, rows=rows.rows, each=each)
    return replace(work, tokens=tokens)


def probed_peak(probe: Probe | None) -> dict[str, Estimate]:
    """The peak of a stage whose memory no formula gives."""
    if probe is None:
        return {}
    return {"peak_bytes": exact(probe.peak_bytes, "bytes", "measured", "peak of the stage's probe")}


def with_probed_peak(
    found: Memory, spec: Sft | Rl, root: Model | None, own: Probe | None, index: Index
) -> Memory:
    """Memory by the peak of the stage's own probe, else of one of the same shape, else as published for that shape."""
    if root is None or not (index.probes or index.published):
        return found
    planned = shape(spec, root)
    if own is not None and own.shape == planned:
        return with_peak(found, probed_peak(own)["peak_bytes"])
    for measured, peak, formula in _peaks(index):
        if measured == planned:
            lo, hi = peak / MEMORY_SPREAD, peak * MEMORY_SPREAD
            return with_peak(found, between(lo, peak, hi, "bytes", "calibrated", formula))
    return found


def _peaks(index: Index) -> Iterator[tuple[str, float, str]]:
    """Shapes with their peaks and where those come from, the best first."""
    for probe in index.probes.values():
        yield probe.shape, probe.peak_bytes, f"peak of the probe of `{probe.name}`"
    for row in index.published.values():
        if row.peak_bytes:
            yield row.shape, row.peak_bytes, f"published: {row.source}"
