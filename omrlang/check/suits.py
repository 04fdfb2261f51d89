"""A stage's rows and model against each other: benchmarks are not trained on, a model of text is shown no images.

Only what is certain is an error: what a source says that it has, and what a model says that it cannot do.
"""

from __future__ import annotations

from dataclasses import replace

from omrlang.check.context import Context, Traits
from omrlang.check.most import check_amounts, most_rows
from omrlang.check.values import evaluate
from omrlang.hir import Stage
from omrlang.schema import Eval, Filter, Mix, Rl, Sample, Sft, Source, Spec
from omrlang.scope import Bound, Draft
from omrlang.types import Col, ExprNode, Fresh, Model, OpenAI, Scripted, TrainedModel
from omrlang.walk import children

NATIVE = ("qwen2_5_vl", "qwen3_vl")
"""Families of `fresh` whose images keep their size, within bounds."""


def check_suits(ctx: Context, draft: Draft, stage: Stage) -> None:
    """Report what does not go together, and note what those who take this stage's rows or model must know."""
    spec = stage.spec
    rows = _of_rows(ctx, spec)
    blind = _text_only(ctx, draft, spec) if isinstance(spec, Sample | Sft | Rl | Eval) else None
    sizes = _own_size(ctx, spec) if isinstance(spec, Sample | Sft | Rl | Eval) else None
    ctx.traits[spec.name] = replace(
        rows, text_only=blind, own_size=sizes, most=most_rows(ctx, spec)
    )
    _check_sizes(ctx, stage, sizes)
    kind = f"{spec.kind} `{spec.name}`"
    if isinstance(spec, Mix):
        check_amounts(ctx, draft, spec)
    if isinstance(spec, Sft | Rl) and isinstance(spec.model, Model):
        _check_learns(ctx, draft, spec.model, kind)
    if isinstance(spec, Sft | Rl) and spec.hardware is not None and spec.hardware.cluster:
        message = f"{kind} trains on machines of its own, not on a Ray cluster"
        hint = "`sample`, `filter` and `eval` go there; `hardware` without `cluster` stands here"
        ctx.error("E309", message, draft.clauses["on"].expr.span, hint)
    if isinstance(spec, Sft | Rl) and rows.benchmark is not None:
        message = (
            f"{kind} trains on benchmark `{rows.benchmark}`: what it is then tested on, it has seen"
        )
        hint = "a split that is meant for training is a `source`"
        ctx.error("E313", message, draft.clauses["from"].expr.span, hint)
    _check_shown(ctx, draft, spec, rows.filmed)
    pictured = rows.pictured or _watched_pictures(ctx, spec)
    if blind is not None and pictured is not None:
        message = (
            f"{kind}: the rows of `{pictured}` have images, `{blind}` is a model of text alone"
        )
        hint = "a source without the column `images` has rows of text"
        ctx.error("E314", message, draft.clauses["with"].expr.span, hint)


def _check_shown(ctx: Context, draft: Draft, spec: Spec, filmed: str | None) -> None:
    """Videos and audio go to servers, which say themselves what they can; a model in process is shown none."""
    if filmed is None or not isinstance(spec, Sample | Sft | Rl | Eval):
        return
    if not _asks_server(spec):
        kind = f"{spec.kind} `{spec.name}`"
        message = f"{kind}: the rows of `{filmed}` have videos or audio, which no model in process is shown"
        hint = "`sample` and `eval` can ask a server: `engine = openai(…)`"
        ctx.error("E314", message, draft.clauses["with"].expr.span, hint)


def _asks_server(spec: Sample | Sft | Rl | Eval) -> bool:
    """Whether another machine's program has the model, for certain."""
    if isinstance(spec, Sft | Rl):
        return False
    own = spec.model.engine if isinstance(spec.model, Model) else None
    return isinstance(spec.engine or own, OpenAI)


def _check_sizes(ctx: Context, stage: Stage, sizes: str | None) -> None:
    """``sizes`` names a model whose family brings every image to a size of its own. Before a server images are resized here."""
    spec = stage.spec
    if sizes is None or not isinstance(spec, Sample | Sft | Rl | Eval) or _asks_server(spec):
        return
    for key in ("min_pixels", "max_pixels"):
        setting = stage.settings.get(key)
        if getattr(spec, key) is not None and setting is not None:
            message = f"{spec.kind} `{spec.name}` sets `{key}`, `{sizes}` brings every image to a size of its own"
            span = setting.span or stage.span
            ctx.error("E314", message, span, f"without `{key}`; models of Qwen-VL take it")


def _own_size(ctx: Context, spec: Sample | Sft | Rl | Eval) -> str | None:
    """The name of the model that a stage starts from or asks, where it is known that images have one size to it."""
    model = spec.model
    if isinstance(model, TrainedModel):
        return ctx.traits.get(model.stage, Traits()).own_size
    if isinstance(model.source, Fresh):
        native = model.source.family in NATIVE or not model.source.sees_images
    else:
        native = model.shape is None or model.shape.tiling == "native"
    return None if native else model.name


def _check_learns(ctx: Context, draft: Draft, model: Model, kind: str) -> None:
    if isinstance(model.source, Scripted):
        message = f"{kind} trains a model, `{model.name}` is a program"
        ctx.error("E309", message, draft.clauses["with"].expr.span, "a program has no weights")


def _watched_pictures(ctx: Context, spec: Spec) -> str | None:
    """Who gave images to rows that validation shows to the model."""
    names = spec.watch.rows.names if isinstance(spec, Rl) and spec.watch is not None else ()
    found = (ctx.traits.get(name, Traits()).pictured for name in names)
    return next((name for name in found if name is not None), None)


def _of_rows(ctx: Context, spec: Spec) -> Traits:
    """What is certain of the rows that a stage gives, or trains on."""
    if isinstance(spec, Source):
        is_pictured = "images" in spec.columns or spec.place.kind == "synthetic"
        asks = spec.where is not None and _looks_at_images(spec.where.tree)
        return Traits(
            spec.name if spec.benchmark else None,
            spec.name if is_pictured and not asks else None,
            spec.name if {"videos", "audios"} & spec.columns.keys() and not asks else None,
            aggregate=spec.aggregate,
        )
    parents = [ctx.traits.get(name, Traits()) for name in _row_sets(spec)]
    benchmark = next((parent.benchmark for parent in parents if parent.benchmark), None)
    pictured = next((parent.pictured for parent in parents if parent.pictured), None)
    filmed = next((parent.filmed for parent in parents if parent.filmed), None)
    if isinstance(spec, Filter) and _looks_at_images(spec.keep.tree):
        pictured = filmed = None
    return Traits(benchmark, pictured, filmed)


def _row_sets(spec: Spec) -> tuple[str, ...]:
    match spec:
        case Mix(parts=parts):
            return tuple(part.rows for part in parts)
        case Eval(rows=rows):
            return rows
        case Sample(rows=name) | Filter(rows=name) | Sft(rows=name) | Rl(rows=name):
            return (name,)
        case _:
            return ()


def _looks_at_images(tree: ExprNode) -> bool:
    """Whether an expression may choose rows by their images."""
    own = isinstance(tree, Col) and tree.name in ("images", "videos", "audios")
    return own or any(_looks_at_images(child) for child in children(tree))


def _text_only(ctx: Context, draft: Draft, spec: Sample | Sft | Rl | Eval) -> str | None:
    """The name of the model that a stage starts from or asks, where that sees no images for certain."""
    if isinstance(spec.model, TrainedModel):
        return ctx.traits.get(spec.model.stage, Traits()).text_only
    return spec.model.name if says_no_images(ctx, draft.clauses["with"], spec.model) else None


def says_no_images(ctx: Context, bound: Bound, model: Model) -> bool:
    """Whether the model that ``bound`` names sees no images for certain."""
    declared = evaluate(ctx, ctx.follow(bound))
    return isinstance(declared, Draft) and not model.vision and _says_so(declared, model)


def _says_so(declared: Draft, model: Model) -> bool:
    """That ``vision`` is false by default says nothing; the standard library's models, which have a shape, say it."""
    if isinstance(model.source, Fresh):
        return not model.source.sees_images
    is_known = declared.scope.layer == "stdlib" and model.shape is not None
    return is_known or declared.sets("vision")
