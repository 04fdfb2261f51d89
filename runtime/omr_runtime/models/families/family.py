"""Pictures become a model's arguments and the tokens that stand for them: what a family of models says about that.

Legend: L tokens of a prompt with its response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from omr_runtime.errors import RunError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Inputs: TypeAlias = "Mapping[str, Tensor]"
"""Pictures as the model takes them, by the names of its arguments. Those of several prompts are put one after another along
the first axis, so that any number of prompts is one call."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most pixels of a picture that a stage asks for."""

    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True, slots=True)
class Pictured:
    """The pictures of one prompt. ``texts`` is what stands in the prompt for each, with one image token for every run of
    them, and ``counts`` how many tokens each run has. ``shown`` are the pictures for an engine that makes arguments of them
    itself, brought to their size here where that can be, so that it makes the same; ``told`` is what its image processor
    must be set to for that."""

    inputs: Inputs
    texts: Sequence[str]
    counts: Sequence[int]
    shown: Sequence[Image]
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reader:
    """What a folder's pictures are read with: its image processor, its config, and the text of a token by its id."""

    processor: Any
    config: Any
    token: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Family:
    """What is particular to models of one kind.

    ``model_types`` are those of a ``config.json``, ``processors`` the image processors (on PIL alone) by the name that a
    folder gives them. ``mark`` is the token that a chat template writes for a picture; ``dummy`` gives the tokens of a
    prompt of one blank picture, and the picture.
    """

    name: str
    model_types: tuple[str, ...]
    processors: Mapping[str, str]
    read: Callable[[Reader, Sequence[Image], Bounds], Pictured]
    dummy: Callable[[Any], tuple[list[int], Inputs]]
    mark: Callable[[Any], int]
    positions: Callable[[Sequence[int], Inputs, Any], NDArray[np.int64]] | None = None
    """Temporal, height and width positions ``[3, L]``; None where tokens are counted one by one."""
    check: Callable[[Any], str | None] = field(default=lambda config: None)
    """Why a config of the family is not supported; None if it is."""
    has_bounds: bool = False
    """Whether a stage may set the pixels of a picture."""
    looks_ahead: bool = False
    """Whether the tokens of one picture see each other, also those after."""
    vllm_sees_one: bool = False
    """Whether vLLM shows each of several pictures as if it were alone in its prompt, where transformers does not."""
    has_windows: bool = False
    """Whether the vision tower takes the pictures of a pack as one sequence, and says where each window of it ends."""
    served_names: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of weights' names in memory, and what published checkpoints, and so vLLM, have in their place."""
    needs_parts: bool = False
    """Whether chat templates read a turn as a list of parts only: of a plain string they would write nothing."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a sample of a model is made by besides its tokens; a model of text alone has no family."""

    family: Family | None = None
    config: Any = None

    @staticmethod
    def of(config: Any) -> Layout:
        """From a transformers config. RunError if it is of a vision-language model that is not supported."""
        from omr_runtime.models.families import family_of

        if getattr(config, "vision_config", None) is None:
            return Layout()
        return Layout(family_of(config.model_type), config)

    def served_name(self, name: str) -> str:
        """How published checkpoints, and so vLLM, call the weight that is ``name`` in memory."""
        for start, other in (self.family.served_names if self.family else {}).items():
            if name.startswith(start):
                return other + name.removeprefix(start)
        return name

    @property
    def image_token_id(self) -> int | None:
        """The token that stands for a part of a picture."""
        return None if self.family is None else int(self.config.image_token_id)

    def positions(
        self, input_ids: Sequence[int], images: Inputs | None
    ) -> NDArray[np.int64] | None:
        """``[3, L]`` for a family whose pictures have rows and columns, else None."""
        if self.family is None or self.family.positions is None:
            return None
        return self.family.positions(input_ids, images or {}, self.config)

    def pictures(self, input_ids: Sequence[int]) -> NDArray[np.int64] | None:
        """``[L]``: the number of the picture, from 1, that a token belongs to, 0 for text; None where all tokens alike see
        only what is before them."""
        if self.family is None or not self.family.looks_ahead:
            return None
        return picture_numbers(np.asarray(input_ids) == self.image_token_id)


def picture_numbers(of_image: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Runs of image tokens, numbered.

    >>> picture_numbers(np.array([False, True, True, False, True])).tolist()
    [0, 1, 1, 0, 2]
    """
    begins = of_image & ~np.concatenate([[False], of_image[:-1]])
    numbers: NDArray[np.int64] = np.cumsum(begins) * of_image
    return numbers


def joined(parts: Sequence[Inputs]) -> dict[str, Tensor] | None:
    """The pictures of several prompts, in order; None where there are none."""
    import torch

    if not parts:
        return None
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def num_bytes(inputs: Inputs | None) -> int:
    """What they take in memory."""
    return sum(tensor.nbytes for tensor in (inputs or {}).values())


DEEPER_TOWER: Mapping[str, str] = {"model.vision_tower.": "model.vision_tower.vision_model."}
"""Of families whose published checkpoints have the tower's model one level deeper than transformers 5 has it."""


def blank(*shape: int) -> Tensor:
    """A picture of one colour, which is not zero: some models take pictures of zeros for filling, and leave them out."""
    import torch

    return torch.ones(shape)


def check_size(pixels: Tensor, config: Any) -> None:
    """RunError where an image processor's pictures are not as large as the vision tower takes them."""
    side, (height, width) = int(config.vision_config.image_size), pixels.shape[-2:]
    if (height, width) != (side, side):
        raise RunError(
            f"the image processor makes images of {height} x {width} pixels, "
            f"the model's vision tower takes {side} x {side}"
        )


def sized(processor: Any, images: Sequence[Image], **settings: Any) -> list[Image]:
    """Pictures as a processor of pictures of one size cuts and resizes them; it then finds nothing left to do."""
    from PIL.Image import fromarray

    plain = {"do_rescale": False, "do_normalize": False} | settings
    made = processor(images=rgb(images), **plain)["pixel_values"]
    return [fromarray(np.asarray(one).transpose(1, 2, 0).astype(np.uint8)) for one in made]


ON_PIL: Mapping[str, Any] = {"use_fast": False}
"""What a transformers processor is told so that it makes pictures as they are made here: torchvision resizes otherwise."""


def rgb(images: Sequence[Image]) -> list[Image]:
    """Every picture in three colours."""
    return [image.convert("RGB") for image in images]
