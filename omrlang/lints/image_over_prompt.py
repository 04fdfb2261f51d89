"""W108: one image within the budget alone has more tokens than the RL stage's longest prompt.

Seen in a published recipe: trained on images up to 4.19 megapixels, then RL drops every prompt over 4,096 tokens, which an
image of 3.1 megapixels exceeds. The rows with the finest images are lost, and nobody is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from omrlang.diagnostics import Diagnostic
from omrlang.estimate.assumptions import SHAPES_PIXELS
from omrlang.estimate.shapes import shape_of
from omrlang.hir import Stage
from omrlang.lints.places import Graph, has_images, setting_span, warning
from omrlang.schema import Rl, Source

PATCH = 28
"""Side of the square of pixels that becomes one token, in the Qwen2.5-VL family."""


def lint(graph: Graph) -> Iterator[Diagnostic]:
    for stage, spec in graph.of(Rl):
        if not graph.sees_images(stage):
            continue
        side = _side(graph, spec)
        limit = spec.max_prompt * side**2
        largest = _largest(graph, stage, spec)
        if largest is None or largest >= limit:
            message = (
                f"rl `{spec.name}`: an image of {limit:,} pixels alone fills `max_prompt`, and"
                f" {_allowed(spec)}; such rows are dropped"
            )
            hint = f"`max_pixels` well below {limit:,}, or a longer `max_prompt`"
            yield warning("W108", message, setting_span(stage, "max_prompt"), hint)


def _side(graph: Graph, spec: Rl) -> int:
    root = graph.root(spec)
    shape = shape_of(root) if root is not None else None
    return shape.patch * shape.merge if shape is not None else PATCH


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
