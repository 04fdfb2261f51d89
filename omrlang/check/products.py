"""Counts of a finished stage or of a model that is made that must divide each other, shown with their values where they do
not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omrlang.check.context import Context
from omrlang.hir import Stage
from omrlang.schema import Eval, Rl, Sample, Sft, Spec
from omrlang.settle import gpus_a_process, num_devices, settled_amount
from omrlang.source import Span
from omrlang.types import Fresh, Hardware, Vllm


@dataclass(frozen=True, slots=True)
class Product:
    """``whole`` must be a whole number of times ``part``; ``key`` is the setting to point at."""

    key: str
    whole: tuple[str, float]
    part: tuple[str, float]
    why: str


def check_products(ctx: Context, stage: Stage) -> None:
    """Report every product of the stage that does not come out."""
    for product in products(stage.spec):
        _report(ctx, product, _span(stage, product.key))


def _report(ctx: Context, product: Product, at: Span) -> None:
    (whole, number), (part, each) = product.whole, product.part
    if each and number % each:
        message = f"`{part}` does not divide `{whole}`: {product.why}"
        values = f"{whole} {number:g} / {part} {each:g} = {number / each:.4g}, no whole number"
        ctx.error("E315", message, at, values)


def check_fresh(ctx: Context, source: Fresh, at: Span) -> None:
    """Report where a model's heads do not come out."""
    for product in _heads(source):
        _report(ctx, product, at)


def _heads(source: Fresh) -> Iterator[Product]:
    """Rotary positions turn the numbers of a head in pairs; in Qwen's towers one half of them by rows, the other by columns."""
    width, why = ("hidden", source.hidden), "each head takes an even number of it"
    yield Product("heads", width, ("2 x heads", 2 * source.heads), why)
    if not source.sees_images:
        return
    own, heads = source.vision_hidden or source.hidden, source.tower_heads
    tower = ("vision_hidden", own)
    if source.family in ("qwen2_5_vl", "qwen3_vl"):
        each, why = ("4 x heads of the tower", 4 * heads), "a head has rows and columns, in pairs"
    else:
        each, why = ("heads of the tower", heads), "heads are of equal size, at least 32"
    yield Product("vision_hidden", tower, each, why)


def products(spec: Spec) -> Iterator[Product]:
    """What must divide what on this stage."""
    if isinstance(spec, Rl) and spec.minibatch is not None:
        amounts = (spec.batch, spec.minibatch)
        batch, part = (settled_amount(amount, num_devices(spec)).value for amount in amounts)
        why = "the last optimiser step of a batch would be smaller"
        yield Product("minibatch", ("batch", batch), ("minibatch", part), why)
    if isinstance(spec, Rl) and spec.oversample is not None:
        yield from _of_processes(spec)
    hardware: Hardware | None = getattr(spec, "hardware", None)
    if hardware is not None and hardware.gpu is not None:
        yield from _on_gpus(spec, hardware)


def _of_processes(spec: Rl) -> Iterator[Product]:
    """Which groups end first each process finds among its own."""
    devices = num_devices(spec)
    why = "each process has as many prompts under way"
    for key in ("batch", "oversample"):
        whole = (key, settled_amount(getattr(spec, key), devices).value)
        yield Product(key, whole, ("processes", devices), why)


def _on_gpus(spec: Spec, hardware: Hardware) -> Iterator[Product]:
    """What is rented must not stand idle; processes on a machine without a GPU cost nothing."""
    devices = ("devices", hardware.count)
    if hardware.count > hardware.per_node:
        nodes = ("per_node", hardware.per_node)
        yield Product("on", devices, nodes, "machines are rented whole")
    if isinstance(spec, Sft) and spec.batch.unit.startswith("packs"):
        batch = settled_amount(spec.batch, hardware.count).value
        yield Product("batch", ("packs of a batch", batch), devices, "some would wait each step")
    each = gpus_a_process(spec)
    if each > 1:
        one = ("1 + tensor_parallel", each)
        node = ("devices of a machine", min(hardware.count, hardware.per_node))
        yield Product("engine", node, one, "each that trains has an engine apart beside it")
    elif isinstance(spec, Sample | Eval | Rl) and isinstance(spec.engine, Vllm):
        parallel = ("tensor_parallel", spec.engine.tensor_parallel)
        if isinstance(spec, Rl):
            devices = ("devices of a training process", 1)
            why = "its engine draws on these; with `apart = true` it has GPUs of its own"
        else:
            why = "engines are of equal size"
        yield Product("engine", devices, parallel, why)


def _span(stage: Stage, key: str) -> Span:
    provenance = stage.settings.get(key)
    return provenance.span if provenance and provenance.span else stage.span
