"""W108: one image within the budget alone has more tokens than the RL stage's longest prompt.

Seen in a published recipe: trained on images up to 4.19 megapixels, then RL drops every prompt over 4,096 tokens, which an
image of 3.1 megapixels exceeds. The rows with the finest images are lost, and nobody is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.estimate.assumptions import SHAPES_PIXELS
from omrlang.estimate.shapes import shape_of
from omrlang.estimate.visual import image_tokens
from omrlang.hir import Stage
from omrlang.lints.places import Graph, has_images, setting_span, warning
from omrlang.schema import Rl, Source
from omrlang.types import Shape

PATCH = 28
"""Side of the square of pixels that becomes one token, in the Qwen2.5-VL family."""

LARGE = 4_096
"""Pixels of a side that no tiling leaves as they are."""


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        if not graph.sees_images(stage):
            continue
        root = graph.root(spec)
        shape = shape_of(root) if root is not None else None
        if shape is not None and shape.tiling != "native":
            found = _cut(shape, spec, _largest(graph, stage, spec))
        else:
            found = _in_its_size(graph, stage, spec, shape)
        if found is not None:
            yield warning("W108", found[0], setting_span(stage, "max_prompt"), found[1])


def _cut(shape: Shape, spec: Rl, largest: float | None) -> tuple[str, str] | None:
    """Message and hint where the model brings each image to a size of its own, and no `max_pixels` may be set."""
    side = LARGE if largest is None else math.ceil(math.sqrt(largest))
    most = image_tokens(shape, side, side)
    if most < spec.max_prompt:
        return None
    message = (
        f"rl `{spec.name}`: a large image alone has {most:,} tokens, which fills `max_prompt`; "
        "such rows are dropped"
    )
    return message, f"a `max_prompt` well over {most:,}"


def _in_its_size(
    graph: Graph, stage: Stage, spec: Rl, shape: Shape | None
) -> tuple[str, str] | None:
    side = shape.patch * shape.merge if shape is not None else PATCH
    limit = spec.max_prompt * side**2
    largest = _largest(graph, stage, spec)
    if largest is not None and largest < limit:
        return None
    message = (
        f"rl `{spec.name}`: an image of {limit:,} pixels alone fills `max_prompt`, and"
        f" {_allowed(spec)}; such rows are dropped"
    )
    return message, f"`max_pixels` well below {limit:,}, or a longer `max_prompt`"


def _allowed(spec: Rl) -> str:
    if spec.max_pixels is None:
        return "no `max_pixels` shrinks it"
    return f"`max_pixels` allows {spec.max_pixels:,}"


def _largest(graph: Graph, stage: Stage, spec: Rl) -> float | None:
    """Pixels of the largest image that a prompt can hold; None where nothing bounds it."""
    found = [_declared(source) for _, source in graph.sources(stage) if has_images(source)]
    known = [pixels for pixels in found if pixels is not None]
    bounds = [max(known)] if len(known) == len(found) else []
    if spec.max_pixels is not None:
        bounds.append(spec.max_pixels)
    return min(bounds, default=None)


def _declared(source: Source) -> float | None:
    if source.place.kind == "synthetic":
        return SHAPES_PIXELS
    return source.assume.image.hi if source.assume.image else None
