"""Requests -> completions by any servers that speak OpenAI's chat protocol: ``vllm serve``, SGLang, a provider.

All samples of a question go in one request, so its prompt and pictures are paid once. Alone knows which failures are
worth another try (429, 5xx, timeouts, broken connections and broken answers), which are the request's own, and which
end the stage.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import math
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from omr_runtime import chat
from omr_runtime.engines.protocol import (
    Completion,
    Decoding,
    Done,
    EngineDied,
    Finish,
    Request,
    failed,
)
from omr_runtime.errors import RunError
from omrlang.types import HfModel, Model, OpenAI

CONNECT_TIMEOUT_S = 10.0
MAX_WAIT_S = 60.0
MOST_TOKENS = 2**31
NO_KEY = "none"


@dataclass(frozen=True, slots=True)
class Retry:
    """``tries`` in all; the i-th wait is drawn from 0 to ``first_wait_s * 2**i``, so that clients do not fall in step."""

    tries: int = 10
    first_wait_s: float = 1.0

    def wait_s(self, attempt: int, told_s: float | None) -> float:
        drawn = random.uniform(0, min(MAX_WAIT_S, self.first_wait_s * 2**attempt))
        return drawn if told_s is None else min(MAX_WAIT_S, told_s) + drawn


@dataclass(slots=True)
class _Server:
    url: str
    client: AsyncOpenAI
    num_open: int = 0


@dataclass(slots=True)
class _Job:
    """One question under way; ``left`` are positions in its indices that have no sample yet."""

    request: Request
    messages: list[dict[str, Any]]
    left: list[int] = field(default_factory=list)


class _Refused(Exception):
    """This request cannot be had; the reason is recorded with its samples."""


class _Unusable(Exception):
    """An answer came that is none: cut, no JSON, without what a chat answer has. The next one may be whole."""


class OpenAIEngine:
    """``addresses`` share the load: each request goes to the one with the fewest open."""

    name = "openai"
    version = openai.__version__

    def __init__(
        self,
        addresses: Sequence[str],
        model: str,
        key: str = NO_KEY,
        concurrency: int = 32,
        retry: Retry | None = None,
        key_name: str = "OPENAI_API_KEY",
        timeout_s: float = OpenAI().timeout,
    ) -> None:
        self.addresses, self.model, self.key, self.key_name = tuple(addresses), model, key, key_name
        self.concurrency, self.retry, self.timeout_s = concurrency, retry or Retry(), timeout_s
        self.silent = 0
        """Connections that broke one after another since anything was answered."""

    @staticmethod
    def of(model: Model, settings: OpenAI) -> OpenAIEngine:
        """The engine that a model's ``openai(…)`` describes. RunError when its address is not set."""
        served = settings.model or (
            model.source.id if isinstance(model.source, HfModel) else model.name
        )
        key = os.environ.get(settings.key_env) or NO_KEY
        return OpenAIEngine(
            addresses(settings),
            served,
            key,
            settings.concurrency,
            key_name=settings.key_env,
            timeout_s=settings.timeout,
        )

    def generate(self, requests: Iterable[Request], done: Done) -> None:
        """All samples, ``concurrency`` requests at a time. ``done`` is called in the calling thread."""
        asyncio.run(self._generate(requests, done))

    def close(self) -> None:
        """Connections live within ``generate`` only."""

    async def _generate(self, requests: Iterable[Request], done: Done) -> None:
        servers = [_Server(url, self._client(url)) for url in self.addresses]
        waiting = iter(requests)
        tasks = [
            asyncio.create_task(self._work(waiting, servers, done)) for _ in range(self.concurrency)
        ]
        try:
            for task in asyncio.as_completed(tasks):
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(server.client.close() for server in servers))

    def _client(self, url: str) -> AsyncOpenAI:
        timeout = openai.Timeout(self.timeout_s, connect=CONNECT_TIMEOUT_S)
        return AsyncOpenAI(base_url=url, api_key=self.key, max_retries=0, timeout=timeout)

    async def _work(self, waiting: Iterator[Request], servers: list[_Server], done: Done) -> None:
        for request in waiting:
            try:
                job = _Job(request, wire_messages(request), list(range(len(request.indices))))
            except (chat.UnusableRow, OSError) as error:
                _refuse(request, str(error), done)
                continue
            await self._finish(job, servers, done)

    async def _finish(self, job: _Job, servers: list[_Server], done: Done) -> None:
        """Ask until every sample is there: some servers give fewer than were asked for."""
        while job.left:
            try:
                answer = await self._ask(job, servers)
            except _Refused as error:
                _refuse(_rest(job), str(error), done)
                return
            given, job.left = job.left[: len(answer.choices)], job.left[len(answer.choices) :]
            for completion in completions(job.request, given, answer):
                done(completion)

    async def _ask(self, job: _Job, servers: list[_Server]) -> Any:
        """One answer, with as many tries as may help."""
        for attempt in range(self.retry.tries):
            server = min(servers, key=lambda s: s.num_open)
            try:
                return await self._try(job, server)
            except (_Unusable, openai.APIError) as error:
                told_s = self._judge(error, server.url, attempt == self.retry.tries - 1)
            await asyncio.sleep(self.retry.wait_s(attempt, told_s))
        raise AssertionError("the last try returns or raises")

    async def _try(self, job: _Job, server: _Server) -> Any:
        """One request, over within its deadline however slowly the server sends."""
        server.num_open += 1
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await server.client.chat.completions.create(**self._body(job))
            self.silent = 0
            return _checked(answer)
        except TimeoutError as error:
            raise _Unusable(f"no answer within {self.timeout_s:g} s") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _Unusable("the answer is no JSON") from error
        except openai.APIStatusError:
            self.silent = 0
            raise
        finally:
            server.num_open -= 1

    def _judge(self, error: _Unusable | openai.APIError, url: str, last: bool) -> float | None:
        """Returns how long the server asks to wait where another try may help; raises otherwise."""
        url = shown_url(url)
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                raise RunError(
                    f"{url} refuses the key in {self.key_name}: {_said(error)}"
                ) from error
            case openai.NotFoundError():
                raise RunError(f"{url} does not serve {self.model}: {_said(error)}") from error
            case _ if not last and _may_pass(error):
                self.silent += _is_silence(error)
                return _told_s(error)
            case _ if _is_silence(error) and self.silent + 1 >= self.retry.tries:
                raise EngineDied(f"{url} cannot be reached: {_said(error)}") from error
            case _:
                tries = f"{self.retry.tries} tries: " if _may_pass(error) else ""
                raise _Refused(f"{tries}{_said(error)}") from error

    def _body(self, job: _Job) -> dict[str, Any]:
        decoding = job.request.decoding
        body: dict[str, Any] = {
            "model": self.model,
            "messages": job.messages,
            "n": len(job.left),
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_tokens,
            "seed": job.request.seeds[job.left[0]],
        }
        extra = _extra(decoding)
        return body | ({"extra_body": extra} if extra else {})


def _may_pass(error: Exception) -> bool:
    """Whether the same request may be answered the next time."""
    match error:
        case openai.APIStatusError(status_code=status):
            return status in (408, 409, 429) or status >= 500
        case _:
            return isinstance(error, _Unusable | openai.APIConnectionError)


def _is_silence(error: Exception) -> bool:
    """Whether nobody is known to be there: a server that is only slow is."""
    broken = isinstance(error, openai.APIConnectionError)
    return broken and not isinstance(error, openai.APITimeoutError)


def _checked(answer: Any) -> Any:
    """The client checks no types, and some servers say with status 200 that they failed."""
    if not isinstance(answer, ChatCompletion) or not isinstance(answer.choices, list):
        raise _Unusable(_complaint(answer))
    if not answer.choices or not all(_is_choice(choice) for choice in answer.choices):
        raise _Unusable(_complaint(answer))
    return answer


def _complaint(answer: Any) -> str:
    said = getattr(answer, "error", None) or "the server gave an answer without choices"
    return _whole(str(said))[:500]


def _is_choice(choice: Any) -> bool:
    message = getattr(choice, "message", None)
    return isinstance(getattr(message, "content", None), str | None) and message is not None


def addresses(settings: OpenAI) -> list[str]:
    """The addresses of the servers, several separated by commas. RunError when the variable is not set."""
    text = settings.url
    if settings.url_env is not None:
        text = os.environ.get(settings.url_env)
        if not text:
            raise RunError(
                f"the environment variable {settings.url_env} is not set; it holds the server's address"
            )
    found = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not found:
        raise RunError("openai(…) has no address")
    return found


def shown_url(url: str) -> str:
    """An address as messages name it, which stand in files: without a name and password, or what follows a question mark.

    >>> shown_url("https://me:secret@host:8000/v1?key=secret")
    'https://host:8000/v1'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def wire_messages(request: Request) -> list[dict[str, Any]]:
    """The messages with each image as a data URL. OSError when an image cannot be read."""
    decoding = request.decoding
    urls = iter(
        [data_url(path, decoding.min_pixels, decoding.max_pixels) for path in request.images]
    )
    videos, audios = iter(request.videos), iter(request.audios)
    turns = chat.messages(request.row, request.prompt)
    for turn in turns:
        if isinstance(turn["content"], list):
            turn["content"] = [_wired(part, urls, videos, audios) for part in turn["content"]]
    return turns


def _wired(
    part: dict[str, Any], urls: Iterator[str], videos: Iterator[Path], audios: Iterator[Path]
) -> dict[str, Any]:
    """A part of a turn as servers take it. Videos and audio are sent whole, as they are kept."""
    match part["type"]:
        case "image":
            return {"type": "image_url", "image_url": {"url": next(urls)}}
        case "video":
            text = base64.b64encode(next(videos).read_bytes()).decode()
            return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{text}"}}
        case "audio":
            data = next(audios).read_bytes()
            heard = {"data": base64.b64encode(data).decode(), "format": _audio_format(data)}
            return {"type": "input_audio", "input_audio": heard}
        case _:
            return part


def _audio_format(data: bytes) -> str:
    """By its first bytes; an MP3 has none that are always the same."""
    marks = ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"))
    return next((name for mark, name in marks if data.startswith(mark)), "mp3")


def data_url(path: Path, min_pixels: int | None = None, max_pixels: int | None = None) -> str:
    """The image as it is stored, or as a PNG scaled into the bounds, so that every server sees the same."""
    from PIL import Image

    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        area = image.width * image.height
        bound = min(max(area, min_pixels or 0), max_pixels or math.inf)
        if bound != area or image.format not in ("PNG", "JPEG", "WEBP", "GIF"):
            scale = math.sqrt(bound / area)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            out = io.BytesIO()
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "PNG")
            return _as_url("PNG", out.getvalue())
        return _as_url(image.format, data)


def _as_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def _extra(decoding: Decoding) -> dict[str, Any]:
    """What OpenAI's own protocol lacks and open servers know."""
    extra: dict[str, Any] = {}
    if decoding.top_k is not None:
        extra["top_k"] = decoding.top_k
    if decoding.choices is not None:
        extra["structured_outputs"] = {"choice": list(decoding.choices)}
    return extra


def completions(request: Request, positions: Sequence[int], answer: Any) -> list[Completion]:
    """The samples of one answer.

    Servers count the tokens of all choices together; each choice gets its share by the length of its text.
    """
    choices = list(answer.choices)[: len(positions)]
    texts = [_text(request, choice.message) for choice in choices]
    shares = _shares(_counted(answer, "completion_tokens") or 0, [len(text) for text in texts])
    prompt = _counted(answer, "prompt_tokens")
    made = []
    for position, choice, text, share in zip(positions, choices, texts, shares, strict=True):
        finish = _finish(getattr(choice, "finish_reason", None))
        reason = f"the server ended it: {choice.finish_reason}" if finish == "error" else None
        made.append(
            Completion(
                request.key,
                request.indices[position],
                text,
                share,
                finish,
                reason,
                num_prompt_tokens=prompt,
            )
        )
    return made


def _counted(answer: Any, name: str) -> int | None:
    """A count of the server's, where it gives one that can be true."""
    value = getattr(answer.usage, name, None)
    return value if isinstance(value, int) and 0 <= value < MOST_TOKENS else None


def _text(request: Request, message: Any) -> str:
    """The content, with reasoning that the server took apart put back before it in the prompt's tags."""
    content = message.content or ""
    reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
    tag = request.prompt.thinking
    if not reasoning or tag is None or f"</{tag}>" in content:
        return _whole(str(content))
    return _whole(f"<{tag}>{reasoning.strip()}</{tag}>{content.lstrip()}")


def _whole(text: str) -> str:
    """Without halves of characters: JSON can spell one, as where a server cuts an emoji in two, and no file can hold it.

    >>> _whole("cut \\ud83d"), _whole("\\ud83d\\ude00") == "\U0001f600"
    ('cut \ufffd', True)
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shares(total: int, lengths: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to the lengths that sum to the total.

    >>> _shares(10, [1, 1, 2])
    [3, 2, 5]
    """
    whole = sum(lengths) or 1
    ends = [0]
    for length in lengths:
        ends.append(ends[-1] + length)
    marks = [math.ceil(total * end / whole) for end in ends]
    return [high - low for low, high in itertools.pairwise(marks)]


def _finish(reason: str | None) -> Finish:
    if reason == "length":
        return "length"
    return "error" if reason in ("content_filter", "error", "abort") else "stop"


def _rest(job: _Job) -> Request:
    request = job.request
    return Request(
        request.key,
        request.row,
        request.prompt,
        tuple(request.indices[i] for i in job.left),
        tuple(request.seeds[i] for i in job.left),
        request.decoding,
        request.images,
    )


def _refuse(request: Request, reason: str, done: Done) -> None:
    for completion in failed(request, reason):
        done(completion)


def _told_s(error: Exception) -> float | None:
    """The server's ``Retry-After`` in seconds."""
    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        return float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None


def _said(error: Exception) -> str:
    text = _whole(str(error)).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:500]
