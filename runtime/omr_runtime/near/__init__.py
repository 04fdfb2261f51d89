"""Near duplicates: rows to the clusters of those that are alike, of which one row stays.

``measures`` says how each column is compared, ``relations.repeats`` finds who repeats whom. What comes out depends on the
rows' contents and the seed alone: not on their order, their files, threads, or how often the work was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omr_runtime.errors import RunError
from omr_runtime.work import Work
from omrlang.types import Minhash, Model, Near, Phash, is_images

if TYPE_CHECKING:
    from omr_runtime.near.measure import Measure
    from omr_runtime.near.pictures import Pictures

FORMS = "forms"
"""The folder beside a stage's shards where forms wait; nothing of it is needed once the stage is done."""


def like(via: str, stays: str) -> str:
    """How a verdict says whom a row is like, and who stays for it where that is another."""
    return f"like row {via}" + ("" if via == stays else f", for which row {stays} stays")


def measures(near: Near, work: Work) -> list[Measure]:
    """How each column is compared, with models loaded. RunError when a package or a model is missing."""
    with _packages():
        return [_images(near, work) if is_images(c) else _texts(near, work) for c in near.columns]


def hashed(state: str | Path) -> Pictures:
    """Images of a state folder by their perceptual hash. RunError when a package is missing."""
    with _packages():
        return _pictures(Phash(), state)


@contextmanager
def _packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise RunError(
            f'near duplicates need `pip install "omrlang[near]"`: {error.name} is not installed'
        ) from error


def _pictures(spec: Phash, state: str | Path) -> Pictures:
    from omr_runtime.near.pictures import Pictures
    from omr_runtime.store import ImageStore

    return Pictures(spec, ImageStore(state).open)


def _texts(near: Near, work: Work) -> Measure:
    if isinstance(near.text, Minhash):
        from omr_runtime.near.words import Words

        return Words(near.text)
    from omr_runtime.near.encoders import text_encoder
    from omr_runtime.near.vectors import Vectors

    return Vectors(text_encoder(_folder(near.text, work)))


def _images(near: Near, work: Work) -> Measure:
    if isinstance(near.image, Phash):
        return _pictures(near.image, work.state)
    from omr_runtime.near.encoders import image_encoder
    from omr_runtime.near.vectors import Vectors
    from omr_runtime.store import ImageStore

    open_image = ImageStore(work.state).open
    return Vectors(image_encoder(_folder(near.image, work), open_image))


def _folder(model: Model, work: Work) -> Path:
    from omr_runtime.models.materialise import materialise

    return materialise(model, Path(work.state), Path(work.base))
