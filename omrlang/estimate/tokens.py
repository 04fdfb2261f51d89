"""Texts and images become tokens: prompts, pictures and responses of one row."""

from __future__ import annotations

from math import sqrt

from omrlang.estimate import assumptions
from omrlang.estimate.ranges import added, between, derive, exact, product, ratio, setting, unknown
from omrlang.estimate.rows import Flow, Past, guess
from omrlang.estimate.visual import image_tokens
from omrlang.pins import Pin
from omrlang.plan import Estimate
from omrlang.schema import Eval, Rl, Sample, Sft, Source
from omrlang.types import Model, Prompt, Range, Scripted, Shape, construct

NO_TOKENS = exact(0, "tokens", "formula", "none")


def declared(found: Range | None, unit: str, what: str) -> Estimate | None:
    """A value of ``assume { … }``."""
    return (
        None
        if found is None
        else between(
            found.lo,
            found.middle,
            found.hi,
            unit,
            "declared",
            f"`assume {{ {what} }}`",
        )
    )


def question_tokens(spec: Source, pin: Pin | None) -> Estimate:
    """Tokens of a question with its options, by what the source's file lets one see."""
    said = declared(spec.assume.prompt, "tokens", "prompt")
    if said is not None:
        return said
    if spec.place.kind == "synthetic":
        return guess(assumptions.SHAPES_QUESTION_TOKENS, "tokens", "a drawn puzzle's question")
    record = _record_tokens(pin)
    if record is not None:
        half = guess(assumptions.QUESTION_SHARE, "", "part of a record that is question")
        return derive("tokens", "record x part that is question", product, record=record, part=half)
    return guess(assumptions.QUESTION_TOKENS, "tokens", "nothing known about the questions")


def _record_tokens(pin: Pin | None) -> Estimate | None:
    """Tokens of one whole raw record: bytes of the file over its rows, in tokens."""
    if pin is None or not pin.num_rows or pin.num_bytes is None:
        return None
    size = exact(pin.num_bytes / pin.num_rows, "bytes", "measured", "file size over rows")
    width = guess(assumptions.CHARACTERS_PER_TOKEN, "characters a token", "English text")
    return ratio("tokens", "bytes of a row / characters a token", size, width)


def source_response(spec: Source, pin: Pin | None) -> Estimate | None:
    """Tokens of a response that the data comes with, where one is mapped."""
    if not {"response", "thinking"} & set(spec.columns) and spec.place.kind != "synthetic":
        return None
    said = declared(spec.assume.response, "tokens", "response")
    if said is not None:
        return said
    if spec.place.kind == "synthetic":
        return guess(assumptions.SHAPES_RESPONSE_TOKENS, "tokens", "a drawn puzzle's solution")
    record = _record_tokens(pin)
    if record is None:
        return unknown(
            "tokens", "nothing is known about the solutions; `assume { response = … }` declares it"
        )
    share = guess(assumptions.SOLUTION_SHARE, "", "part of a record that is solution")
    return derive("tokens", "record x part that is solution", product, record=record, part=share)


def pixels(spec: Source) -> Estimate | None:
    """Pixels of a row's images, None where a source maps none."""
    said = declared(spec.assume.image, "pixels", "image")
    if said is not None:
        return said
    if spec.place.kind == "synthetic":
        return exact(assumptions.SHAPES_PIXELS, "pixels", "formula", "drawn 56 x 56")
    if "images" in spec.columns:
        return guess(assumptions.IMAGE_PIXELS, "pixels", "`assume { image = … }` declares it")
    return None


def visual_tokens(
    found: Estimate | None, shape: Shape | None, lo: int | None, hi: int | None
) -> Estimate:
    """Tokens of an image of so many pixels, as the model's processor cuts it; one for 28 x 28 where no shape is known."""
    if found is None or (shape is not None and not shape.vision_params):
        return NO_TOKENS
    known = shape or UNKNOWN_TOWER

    def tokens(pixels: float, ratio: float) -> float:
        height = max(1, round(sqrt(pixels / ratio)))
        return float(image_tokens(known, height, max(1, round(height * ratio)), lo, hi))

    bounds = "" if lo is None and hi is None else ", between the stage's bounds"
    formula = f"as the processor cuts it ({known.tiling}, {known.patch * known.merge} pixels a token{bounds})"
    ratio = 1.0 if found.mid == assumptions.SHAPES_PIXELS else assumptions.IMAGE_RATIO
    return derive(
        "tokens",
        formula,
        tokens,
        pixels=found,
        ratio=exact(ratio, "", "formula" if ratio == 1 else "assumed", "width over height"),
    )


def row_visual_tokens(flow: Flow, shape: Shape | None, lo: int | None, hi: int | None) -> Estimate:
    """Image tokens of a row, over rows with an image and rows without."""
    each = visual_tokens(flow.pixels, shape, lo, hi)
    if flow.pictured.mid == 1.0 or each is NO_TOKENS:
        return each
    formula = "tokens of an image x share of rows that have one"
    return derive("tokens", formula, product, image=each, share=flow.pictured)


UNKNOWN_TOWER = construct(Shape, patch=14, merge=2)
"""Of a model that nobody declared a shape for: as Qwen2.5-VL without bounds."""


def system_tokens(prompt: Prompt | None) -> Estimate:
    """System prompt and template marks, the same for every row."""
    length = len(prompt.system) if prompt is not None and prompt.system else 0
    text = exact(length, "characters", "formula", "length of the system prompt")
    width = guess(assumptions.CHARACTERS_PER_TOKEN, "characters a token", "English text")
    return derive(
        "tokens",
        "characters / characters a token + template",
        lambda characters, width, template: characters / width + template,
        falling=["width"],
        characters=text,
        width=width,
        template=exact(assumptions.TEMPLATE_TOKENS, "tokens", "assumed", "role marks, newlines"),
    )


def prompt_tokens(
    flow: Flow, prompt: Prompt | None, visual: Estimate, past: Past | None = None
) -> Estimate:
    """Tokens of one row's whole prompt."""
    if past is not None and past.same is not None and past.same.mean_prompt_tokens is not None:
        return exact(
            past.same.mean_prompt_tokens, "tokens", "measured", "mean over the stage's rows"
        )
    parts = {"system": system_tokens(prompt), "question": flow.question, "image": visual}
    return added("tokens", "system + question + image", parts)


def response_tokens(spec: Sample | Rl | Eval, past: Past, like: Estimate | None = None) -> Estimate:
    """Tokens of one response: from a run, else declared, else like those the model learned from, else assumed."""
    longest, key = (
        (spec.max_response, "max_response")
        if isinstance(spec, Rl)
        else (spec.max_tokens, "max_tokens")
    )
    limit = setting(longest, "tokens", key)
    for record, origin in ((past.same, "measured"), (past.earlier, "calibrated")):
        if record is not None and record.mean_response_tokens is not None:
            text = (
                "mean over the stage's rows"
                if origin == "measured"
                else "mean of the last run under this name"
            )
            return exact(
                min(record.mean_response_tokens, longest),
                "tokens",
                "measured" if origin == "measured" else "calibrated",
                text,
            )
    said = declared(spec.assume.response, "tokens", "response")
    if said is not None:
        return said
    if _scripted(spec):
        return guess(assumptions.SHAPES_RESPONSE_TOKENS, "tokens", "a scripted trace")
    if like is not None and like.mid is not None:
        return derive(
            "tokens",
            "like the responses it was trained on, at most the limit",
            lambda like, longest: min(like, longest),
            like=like,
            longest=limit,
        )
    share = guess(assumptions.RESPONSE_SHARE, "", "mean over the longest allowed")
    return derive("tokens", "share x longest allowed", product, share=share, longest=limit)


def _scripted(spec: Sample | Rl | Eval) -> bool:
    return isinstance(spec.model, Model) and isinstance(spec.model.source, Scripted)


def row_tokens(spec: Sft, flow: Flow, shape: Shape | None) -> Estimate:
    """Tokens of one training row: prompt, image and response."""
    visual = row_visual_tokens(flow, shape, spec.min_pixels, spec.max_pixels)
    prompt = prompt_tokens(flow, spec.prompt, visual)
    response = (
        flow.response
        if flow.response is not None
        else unknown("tokens", "the rows come with no responses")
    )
    return added("tokens", "prompt + response", {"prompt": prompt, "response": response})
