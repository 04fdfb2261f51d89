"""Rows and prompts -> messages, token ids and images; responses -> thinking and final answer. Alone knows the format.

There is one path for placeholders on every machine: the tokenizer's chat template writes one mark an image, the model's
family (``models.families``) says which text stands for it, and each image token in that is repeated as often as it says.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omr_runtime.errors import RunError
from omr_runtime.models.families import Bounds, Family, Inputs, Reader
from omr_runtime.models.load import Loaded
from omrlang.types import Prompt, RowExpr

if TYPE_CHECKING:
    from PIL.Image import Image

LETTERS = string.ascii_uppercase


class UnusableRow(RunError):
    """One row that cannot be shown to the model; an engine makes a failed sample of it and goes on."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """``input_ids`` with placeholders expanded; ``unexpanded_text`` is what the chat template wrote. ``images`` are the
    model's arguments for the pictures, None without; ``shown`` are the pictures for an engine that makes them itself, and
    ``told`` what its image processor is set to for that."""

    input_ids: list[int]
    unexpanded_text: str
    images: Inputs | None = None
    shown: Sequence[Image] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a response holds. ``format_ok`` is true only for exactly the prompt's format, white space around it aside."""

    format_ok: bool
    thinking: str | None
    final_answer: str | None


# ---- what the model is asked -----------------------------------------------------------------------------------


def user_text(row: Mapping[str, Any], prompt: Prompt) -> str:
    """The user's turn: the prompt's ``user`` expression, else the question and its options, one a line with letters."""
    if prompt.user is not None:
        return _mapped(prompt.user, row, prompt.name)
    options = row.get("options") or []
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([row["question"], *lines])


def _mapped(user: RowExpr, row: Mapping[str, Any], name: str) -> str:
    from omr_runtime.verify.interpret import ExpressionError, evaluate

    try:
        made = evaluate(user.tree, row)
    except ExpressionError as error:
        raise UnusableRow(f"row {row.get('id')}: the prompt {name}: {error}") from error
    if not isinstance(made, str):
        raise UnusableRow(
            f"row {row.get('id')}: the prompt {name} gives no text for it ({user.text})"
        )
    return made


def messages(row: Mapping[str, Any], prompt: Prompt) -> list[dict[str, Any]]:
    """System turn (if the prompt has one) and user turn, images, videos and audio first. Text alone stays a plain string."""
    turns: list[dict[str, Any]] = []
    if prompt.system is not None:
        turns.append({"role": "system", "content": prompt.system})
    text = user_text(row, prompt)
    seen = [
        {"type": kind}
        for name, kind in (("images", "image"), ("videos", "video"), ("audios", "audio"))
        for _ in row.get(name) or ()
    ]
    if not seen:
        return [*turns, {"role": "user", "content": text}]
    parts = [*seen, {"type": "text", "text": text}]
    return [*turns, {"role": "user", "content": parts}]


def prompt_digest(prompt: Prompt) -> str:
    """16 hex digits that change with anything that the model is shown or that its format is read by."""
    data = {
        "system": prompt.system,
        "thinking": prompt.thinking,
        "answer": prompt.answer,
        "user": prompt.user.tree.model_dump(mode="json") if prompt.user else None,
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def prompt_label(prompt: Prompt) -> str:
    """What the column ``prompt`` holds: name and digest."""
    return f"{prompt.name}:{prompt_digest(prompt)}"


# ---- what the model sees ---------------------------------------------------------------------------------------


def encode_prompt(
    loaded: Loaded,
    row: Mapping[str, Any],
    prompt: Prompt,
    images: Sequence[Image] = (),
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Encoded:
    """Token ids of the whole prompt up to where the response starts, and the images as the model takes them. UnusableRow
    for a row with videos or audio, which no model in process is shown."""
    for name in ("videos", "audios"):
        if row.get(name):
            raise UnusableRow(f"a model in process is shown no `{name}`; a server may be")
    text = render(loaded, row, prompt)
    family = loaded.layout.family
    if family is None:
        if images:
            raise RunError(
                f"{loaded.folder}: a text model cannot read row {row.get('id')}, which has images"
            )
        return Encoded(tokens_of(loaded, text), text)
    return _encode_pictured(loaded, family, text, images, Bounds(min_pixels, max_pixels))


def _encode_pictured(
    loaded: Loaded, family: Family, text: str, images: Sequence[Image], bounds: Bounds
) -> Encoded:
    if bounds != Bounds() and not family.has_bounds:
        raise RunError(
            f"{loaded.folder}: {family.name} brings every image to a size of its own; "
            "`min_pixels` and `max_pixels` cannot be set for it"
        )
    layout = loaded.layout
    token = loaded.image_token_id
    assert token is not None, "a family with vision has an image token"
    if not images:
        return Encoded(expand(tokens_of(loaded, text), token, ()), text)

    def name(id: int) -> str:
        return str(loaded.tokenizer.convert_ids_to_tokens(id))

    mark = name(family.mark(layout.config))
    _same_number(text.count(mark), len(images))
    read = family.read(Reader(loaded.image_processor, layout.config, name), images, bounds)
    ids = tokens_of(loaded, _with_texts(text, mark, read.texts))
    return Encoded(expand(ids, token, read.counts), text, read.inputs, read.shown, read.told)


def tokens_of(loaded: Loaded, text: str) -> list[int]:
    """The tokens of a whole prompt. Chat templates of vision-language models may leave the token that begins a text to
    the tokenizer, as processors of text and images do; those of text models never do."""
    begin = loaded.tokenizer.bos_token
    begins = loaded.is_vision and begin is not None and not text.startswith(begin)
    return list(loaded.tokenizer(text, add_special_tokens=begins)["input_ids"])


def _with_texts(text: str, mark: str, texts: Sequence[str]) -> str:
    """The prompt with each image's text in the place of its mark."""
    first, *rest = text.split(mark)
    return first + "".join(stands + after for stands, after in zip(texts, rest, strict=True))


def render(loaded: Loaded, row: Mapping[str, Any], prompt: Prompt) -> str:
    """The prompt as text, as the model's chat template writes it, one placeholder for each image."""
    from jinja2 import TemplateError

    if loaded.tokenizer.chat_template is None:
        raise RunError(f"{loaded.folder}: the tokenizer has no chat template")
    try:
        text = loaded.tokenizer.apply_chat_template(
            _turns(loaded, row, prompt), tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise UnusableRow(
            f"{loaded.folder}: the chat template refuses row {row.get('id')}: {error}"
        ) from error
    return str(text)


def _turns(loaded: Loaded, row: Mapping[str, Any], prompt: Prompt) -> list[dict[str, Any]]:
    """The messages as the model's chat template reads them."""
    turns, family = messages(row, prompt), loaded.layout.family
    if family is None or not family.needs_parts:
        return turns
    return [turn | {"content": _parts(turn["content"])} for turn in turns]


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _same_number(marks: int, images: int) -> None:
    if marks != images:
        raise UnusableRow(f"the prompt has {marks} image placeholders for {images} images")


def expand(ids: list[int], placeholder: int, counts: Sequence[int]) -> list[int]:
    """The ids with the i-th placeholder repeated ``counts[i]`` times. UnusableRow if their numbers differ."""
    _same_number(ids.count(placeholder), len(counts))
    out: list[int] = []
    rest = iter(counts)
    for token in ids:
        out.extend([placeholder] * next(rest) if token == placeholder else [token])
    return out


# ---- what the model wrote --------------------------------------------------------------------------------------


def response_text(row: Mapping[str, Any], prompt: Prompt) -> str:
    """The response that a row teaches: thinking and answer in the prompt's format, else its ``response`` as it is.

    A row without thinking gets an empty pair of thinking tags. UnusableRow if the row has neither answer nor response.
    """
    answer = row.get("final_answer") if row.get("final_answer") is not None else row.get("answer")
    if answer is None or (row.get("response") is not None and row.get("thinking") is None):
        if row.get("response") is None:
            raise UnusableRow(f"row {row.get('id')}: no response and no answer to learn from")
        return str(row["response"])
    rendered = f"<{prompt.answer}>{answer}</{prompt.answer}>"
    if prompt.thinking is None:
        return rendered
    return f"<{prompt.thinking}>{row.get('thinking') or ''}</{prompt.thinking}>{rendered}"


def parse_response(text: str, prompt: Prompt) -> Parsed:
    """Thinking and final answer by the prompt's tags; the last answer wins. Without answer tags there is no answer."""
    return Parsed(_format_ok(text, prompt), _thinking(text, prompt), _last_answer(text, prompt))


def _format_ok(text: str, prompt: Prompt) -> bool:
    """Each tag once, in order, nothing but white space around and between; the answer is not empty."""
    tags = _tags(prompt.thinking, prompt.answer)
    body = _repaired(text.strip(), prompt)
    match = tags.whole.fullmatch(body)
    if match is None or not match.groups()[-1].strip():
        return False
    return all(body.count(mark) == 1 for mark in tags.marks)


def _repaired(body: str, prompt: Prompt) -> str:
    """With ``repair`` a missing opening thinking tag is put back (some teachers' templates write it in the prompt)."""
    tag = prompt.thinking
    if prompt.repair and tag is not None and f"<{tag}>" not in body and f"</{tag}>" in body:
        return f"<{tag}>{body}"
    return body


def _thinking(text: str, prompt: Prompt) -> str | None:
    if prompt.thinking is None:
        return None
    match = _tags(prompt.thinking, prompt.answer).thinking.search(_repaired(text, prompt))
    return match.group(1).strip() if match else None


@dataclass(frozen=True, slots=True)
class _Tags:
    """What a response is looked through for: all of it, its ``thinking`` (the first tag's), the tags one by one."""

    whole: re.Pattern[str]
    thinking: re.Pattern[str]
    marks: tuple[str, ...]


@functools.lru_cache
def _tags(thinking: str | None, answer: str) -> _Tags:
    names = [answer] if thinking is None else [thinking, answer]
    parts = [rf"<{re.escape(name)}>(.*?)</{re.escape(name)}>" for name in names]
    return _Tags(
        whole=re.compile(r"\s*".join(parts), re.DOTALL),
        thinking=re.compile(parts[0], re.DOTALL),
        marks=tuple(f"<{end}{name}>" for name in names for end in ("", "/")),
    )


def _last_answer(text: str, prompt: Prompt) -> str | None:
    start, end = f"<{prompt.answer}>", f"</{prompt.answer}>"
    stop = text.rfind(end)
    begin = text.rfind(start, 0, stop) if stop >= 0 else -1
    return text[begin + len(start) : stop].strip() if begin >= 0 else None
