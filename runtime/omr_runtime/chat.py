"""Rows and prompts -> messages, token ids and images; responses -> thinking and final answer. Alone knows the format.

There is one path for placeholders on every machine: the tokenizer's chat template writes one placeholder an image, the
image processor says how many patches the image has, and the placeholder's id is repeated ``patches / merge**2`` times.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omr_runtime.errors import RunError
from omr_runtime.models.load import Loaded
from omrlang.types import Prompt, RowExpr

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

LETTERS = string.ascii_uppercase


class UnusableRow(RunError):
    """One row that cannot be shown to the model; an engine makes a failed sample of it and goes on."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """``input_ids`` with placeholders expanded; ``unexpanded_text`` is what the chat template wrote.

    ``pixel_values`` is [patches, patch_dim] and ``image_grid_thw`` [images, 3], both None without images.
    """

    input_ids: list[int]
    unexpanded_text: str
    pixel_values: torch.Tensor | None = None
    image_grid_thw: torch.Tensor | None = None


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
    """Token ids of the whole prompt up to where the response starts, and the images' patches. UnusableRow for a row with
    videos or audio, which no model in process is shown."""
    for name in ("videos", "audios"):
        if row.get(name):
            raise UnusableRow(f"a model in process is shown no `{name}`; a server may be")
    text = render(loaded, row, prompt)
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not images:
        return Encoded(list(ids), text)
    if loaded.image_processor is None or loaded.image_token_id is None:
        raise RunError(
            f"{loaded.folder}: a text model cannot read row {row.get('id')}, which has images"
        )
    pixels, grid = _patches(loaded, images, min_pixels, max_pixels)
    counts = [int(n) for n in grid.prod(-1) // loaded.merge**2]
    return Encoded(expand(list(ids), loaded.image_token_id, counts), text, pixels, grid)


def render(loaded: Loaded, row: Mapping[str, Any], prompt: Prompt) -> str:
    """The prompt as text, as the model's chat template writes it, one placeholder for each image."""
    from jinja2 import TemplateError

    if loaded.tokenizer.chat_template is None:
        raise RunError(f"{loaded.folder}: the tokenizer has no chat template")
    try:
        text = loaded.tokenizer.apply_chat_template(
            messages(row, prompt), tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise UnusableRow(
            f"{loaded.folder}: the chat template refuses row {row.get('id')}: {error}"
        ) from error
    return str(text)


def expand(ids: list[int], placeholder: int, counts: Sequence[int]) -> list[int]:
    """The ids with the i-th placeholder repeated ``counts[i]`` times. UnusableRow if their numbers differ."""
    found = ids.count(placeholder)
    if found != len(counts):
        raise UnusableRow(f"the prompt has {found} image placeholders for {len(counts)} images")
    out: list[int] = []
    rest = iter(counts)
    for token in ids:
        out.extend([placeholder] * next(rest) if token == placeholder else [token])
    return out


def _patches(
    loaded: Loaded, images: Sequence[Image], min_pixels: int | None, max_pixels: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    processor = loaded.image_processor
    assert processor is not None, "checked by the caller"
    size = {
        "shortest_edge": min_pixels or processor.size["shortest_edge"],
        "longest_edge": max_pixels or processor.size["longest_edge"],
    }
    made = processor(
        images=[image.convert("RGB") for image in images], size=size, return_tensors="pt"
    )
    return made["pixel_values"], made["image_grid_thw"]


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
