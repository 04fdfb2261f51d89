"""Requests in, completions out: what every engine that generates text takes and gives, whoever does the work.

An engine is given all requests of a stage at once and keeps itself full, taking each only when it can begin it: so the
caller can end early by giving no more. It calls ``done`` once for each sample as soon
as that sample is finished, in any order, never from two threads at the same time. A length stop is a result. A sample
that cannot be had (``chat.UnusableRow``, a refused request) is a ``Completion`` with ``finish="error"`` and its reason in
``error``; ``EngineDied`` is raised only
when nothing more can be generated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from omr_runtime.errors import Resumable
from omrlang.types import Prompt

Finish: TypeAlias = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How text is drawn. ``temperature`` 0 is greedy; ``top_k`` None is all tokens.

    ``choices``: the response must be one of these texts (a judge's verdict). ``logprobs``: give ``token_ids``,
    ``logprobs`` and ``prompt_token_ids`` too. Engines that can, give ``mean_logprob`` always.
    """

    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    choices: tuple[str, ...] | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One question and the samples that are wanted of it: ``indices[i]`` is drawn with ``seeds[i]``.

    ``key`` is the caller's name for the question. ``row`` has the columns of the row schema; ``images`` are the files of
    the row's images, in order. Seeds of consecutive indices are consecutive numbers, so that a server which numbers
    the samples of one request itself gives the same ones.
    """

    key: str
    row: Mapping[str, Any]
    prompt: Prompt
    indices: tuple[int, ...]
    seeds: tuple[int, ...]
    decoding: Decoding
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    audios: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample. ``num_tokens`` counts the response with its end token if there was one; ``logprobs`` are of the
    sampling distribution (temperature applied), one for each of ``token_ids``."""

    key: str
    index: int
    text: str
    num_tokens: int
    finish: Finish
    error: str | None = None
    mean_logprob: float | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    num_prompt_tokens: int | None = None


Done: TypeAlias = Callable[[Completion], None]
Weights: TypeAlias = Iterable[tuple[str, Any]]
"""(name, tensor) pairs as the model's ``state_dict`` names them, the full set."""


class EngineDied(Resumable):
    """The engine ended or cannot be reached. What was finished is kept; a re-run goes on from there."""


class Engine(Protocol):
    """Who generates. ``name`` is ``vllm``, ``transformers``, ``openai`` or ``scripted``; ``version`` that of its package."""

    name: str
    version: str

    def generate(self, requests: Iterable[Request], done: Done) -> None:
        """Generate all samples of all requests, calling ``done`` for each. Raises ``EngineDied``."""
        ...

    def close(self) -> None: ...


class TrainableEngine(Engine, Protocol):
    """An engine whose weights can be replaced while it stands: the rollouts of ``rl``."""

    def update_weights(self, weights: Weights) -> None:
        """Replace all weights. Whatever was cached under the old ones is dropped."""
        ...


def failed(request: Request, reason: str) -> list[Completion]:
    """A completion with ``finish="error"`` for each sample of the request."""
    return [Completion(request.key, index, "", 0, "error", reason) for index in request.indices]
