"""A stage's ``unique = near(…)`` and its rows to the time that comparing them takes: hashing or encoding, by column."""

from __future__ import annotations

from omrlang.estimate import assumptions
from omrlang.estimate.ranges import between, derive
from omrlang.plan import Estimate
from omrlang.types import Model, Near, RowExpr, is_images


def near_seconds(near: Near, rows: Estimate) -> dict[str, Estimate]:
    """Seconds by what is done; every row counts, though equal texts and images are hashed once."""
    found: dict[str, Estimate] = {}
    for column in near.columns:
        what, rate = _rate(near, column)
        name = f"{what} {column.text}"
        speed = between(
            min(rate), rate[1], max(rate), "rows/s", "assumed", "on a few cores, without a GPU"
        )
        found[name] = derive(
            "s",
            "rows / rows a second",
            lambda rows, speed: rows / speed,
            falling=["speed"],
            rows=rows,
            speed=speed,
        )
    return found


def _rate(near: Near, column: RowExpr) -> tuple[str, assumptions.Guess]:
    if is_images(column):
        is_encoded = isinstance(near.image, Model)
        images = assumptions.ENCODED_IMAGES_PER_S if is_encoded else assumptions.PICTURES_PER_S
        return ("encoding" if is_encoded else "hashing"), images
    if isinstance(near.text, Model):
        return "encoding", assumptions.ENCODED_TEXTS_PER_S
    return "hashing", assumptions.COMPARED_PER_S
