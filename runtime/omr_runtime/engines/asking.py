"""Requests in, encoded prompts out; sampled tokens in, completions out: the same way for every engine in process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from omr_runtime.chat import UnusableRow, encode_prompt
from omr_runtime.engines.decode import Ask, Draw, OnSampled, Sampled
from omr_runtime.engines.protocol import Completion, Decoding, Done, Request, failed
from omr_runtime.models import Loaded

Roll: TypeAlias = Callable[[Iterable[Ask], Draw, OnSampled], None]


def answer(loaded: Loaded, roll: Roll, requests: Iterable[Request], done: Done) -> None:
    """Encode requests as they are needed, roll them out and hand each sample over as text.

    A row that cannot be shown to the model fails its own request only.
    """
    for decoding, same in groupby(requests, key=lambda request: request.decoding):
        _answer_alike(loaded, roll, same, decoding, done)


def _answer_alike(
    loaded: Loaded, roll: Roll, requests: Iterable[Request], decoding: Decoding, done: Done
) -> None:
    asked: list[Request] = []
    prompts: list[list[int]] = []

    def encoded() -> Iterator[Ask]:
        for request in requests:
            ask = _encode(loaded, request, done)
            if ask is not None:
                prompts.append(ask.input_ids)
                asked.append(request)
                yield ask

    def finished(sampled: Sampled) -> None:
        done(completion(loaded, asked[sampled.ask], prompts[sampled.ask], sampled))

    roll(encoded(), draw_of(loaded, decoding), finished)


def _encode(loaded: Loaded, request: Request, done: Done) -> Ask | None:
    decoding = request.decoding
    try:
        images = [_picture(path) for path in request.images]
    except OSError as error:
        _refuse(request, f"image cannot be read: {error}", done)
        return None
    try:
        encoded = encode_prompt(
            loaded, request.row, request.prompt, images, decoding.min_pixels, decoding.max_pixels
        )
    except UnusableRow as error:
        _refuse(request, str(error), done)
        return None
    return Ask(
        encoded.input_ids,
        request.seeds,
        encoded.images,
        encoded.unexpanded_text,
        tuple(encoded.shown),
        encoded.told,
    )


def _refuse(request: Request, reason: str, done: Done) -> None:
    for one in failed(request, reason):
        done(one)


def _picture(path: Path) -> Any:
    with Image.open(path) as image:
        return image.convert("RGB")


def draw_of(loaded: Loaded, decoding: Decoding) -> Draw:
    """The decoding in terms of tokens."""
    choices = None
    if decoding.choices is not None:
        end = loaded.tokenizer.eos_token_id
        texts = [
            loaded.tokenizer.encode(text, add_special_tokens=False) for text in decoding.choices
        ]
        choices = tuple((*ids, end) for ids in texts)
    return Draw(
        decoding.temperature,
        decoding.max_tokens,
        frozenset(loaded.stop_ids),
        decoding.top_p,
        decoding.top_k,
        choices,
        decoding.choices,
        placeholders(loaded),
    )


def placeholders(loaded: Loaded) -> tuple[int, ...]:
    """Tokens that stand for images, which no response may hold."""
    return () if loaded.image_token_id is None else (loaded.image_token_id,)


def response_of(loaded: Loaded, token_ids: Sequence[int]) -> str:
    """The text of a response without the token that ended it."""
    end = len(token_ids) - 1 if token_ids and token_ids[-1] in loaded.stop_ids else len(token_ids)
    return str(loaded.tokenizer.decode(list(token_ids[:end]), skip_special_tokens=False))


def completion(
    loaded: Loaded, request: Request, prompt_ids: list[int], sampled: Sampled
) -> Completion:
    """What the caller of an engine sees of a sample."""
    full = request.decoding.logprobs
    return Completion(
        request.key,
        request.indices[sampled.sample],
        response_of(loaded, sampled.token_ids),
        len(sampled.token_ids),
        "stop" if sampled.stopped else "length",
        mean_logprob=sum(sampled.logprobs) / len(sampled.logprobs),
        token_ids=tuple(sampled.token_ids) if full else None,
        logprobs=tuple(sampled.logprobs) if full else None,
        prompt_token_ids=tuple(prompt_ids) if full else None,
        num_prompt_tokens=len(prompt_ids),
    )
