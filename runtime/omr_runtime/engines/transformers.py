"""Generation in process with a transformers model, with images: the engine of a machine without vLLM.

It takes weights that are already loaded, so that a training loop can roll out with the very weights it trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from omr_runtime.chat import encode_prompt
from omr_runtime.engines.decode import Ask, Draw, OnSampled, Sampled, decode
from omr_runtime.engines.protocol import Completion, Decoding, Done, Request, Weights, failed
from omr_runtime.models import Loaded


class TransformersEngine:
    """``batch`` is how many sequences are decoded at once."""

    name = "transformers"
    version = transformers.__version__

    def __init__(self, loaded: Loaded, batch: int = 64) -> None:
        self.loaded, self.batch = loaded, batch

    def generate(self, requests: Sequence[Request], done: Done) -> None:
        """Generate all samples of all requests; an image that cannot be read fails its own request only."""
        for decoding, same in groupby(requests, key=lambda request: request.decoding):
            answer(self.loaded, self.roll, list(same), decoding, done)

    def roll(self, asks: Iterable[Ask], draw: Draw, done: OnSampled) -> None:
        """Draw every sample of every encoded prompt."""
        decode(self.loaded.model, asks, draw, self.batch, done)

    def update_weights(self, weights: Weights) -> None:
        """Copy the given weights over the model's own."""
        own = self.loaded.model.state_dict()
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)

    def close(self) -> None:
        """Nothing is held besides the weights, which belong to whoever loaded them."""


Roll = Callable[[Iterable[Ask], Draw, OnSampled], None]


def answer(
    loaded: Loaded, roll: Roll, requests: Sequence[Request], decoding: Decoding, done: Done
) -> None:
    """Encode requests as they are needed, roll them out and hand each sample over as text."""
    asked: list[Request] = []
    asks: dict[int, Ask] = {}

    def encoded() -> Iterator[Ask]:
        for request in requests:
            ask = _encode(loaded, request, done)
            if ask is not None:
                asks[len(asked)] = Ask(ask.input_ids, ask.seeds)
                asked.append(request)
                yield ask

    def finished(sampled: Sampled) -> None:
        done(completion(loaded, asked[sampled.ask], asks[sampled.ask].input_ids, sampled))

    roll(encoded(), draw_of(loaded, decoding), finished)


def _encode(loaded: Loaded, request: Request, done: Done) -> Ask | None:
    decoding = request.decoding
    try:
        images = [_picture(path) for path in request.images]
    except OSError as error:
        for completion_ in failed(request, f"image cannot be read: {error}"):
            done(completion_)
        return None
    encoded = encode_prompt(
        loaded, request.row, request.prompt, images, decoding.min_pixels, decoding.max_pixels
    )
    return Ask(
        encoded.input_ids,
        request.seeds,
        encoded.pixel_values,
        encoded.image_grid_thw,
        encoded.unexpanded_text,
        tuple(images),
    )


def _picture(path: Path) -> Any:
    with Image.open(path) as image:
        return image.convert("RGB")


def stop_ids(loaded: Loaded) -> frozenset[int]:
    """The tokens that end a response: the tokenizer's and those of the model's generation settings."""
    configured = getattr(getattr(loaded.model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [loaded.tokenizer.eos_token_id, *listed] if token is not None)


def draw_of(loaded: Loaded, decoding: Decoding) -> Draw:
    """The decoding in terms of tokens."""
    choices = None
    if decoding.choices is not None:
        end = loaded.tokenizer.eos_token_id
        texts = [loaded.tokenizer.encode(text, add_special_tokens=False) for text in decoding.choices]
        choices = tuple((*ids, end) for ids in texts)
    return Draw(
        decoding.temperature,
        decoding.max_tokens,
        stop_ids(loaded),
        decoding.top_p,
        decoding.top_k,
        choices,
    )


def response_text_of(loaded: Loaded, token_ids: Sequence[int], stops: frozenset[int]) -> str:
    """The text of a response without the token that ended it."""
    end = len(token_ids) - 1 if token_ids and token_ids[-1] in stops else len(token_ids)
    return str(loaded.tokenizer.decode(list(token_ids[:end]), skip_special_tokens=False))


def completion(
    loaded: Loaded, request: Request, prompt_ids: list[int], sampled: Sampled
) -> Completion:
    """What the caller of an engine sees of a sample."""
    full = request.decoding.logprobs
    return Completion(
        request.key,
        request.indices[sampled.sample],
        response_text_of(loaded, sampled.token_ids, stop_ids(loaded)),
        len(sampled.token_ids),
        "stop" if sampled.stopped else "length",
        mean_logprob=sum(sampled.logprobs) / len(sampled.logprobs),
        token_ids=tuple(sampled.token_ids) if full else None,
        logprobs=tuple(sampled.logprobs) if full else None,
        prompt_token_ids=tuple(prompt_ids) if full else None,
        num_prompt_tokens=len(prompt_ids),
    )
