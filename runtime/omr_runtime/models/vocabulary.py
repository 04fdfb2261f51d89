"""A few dozen characters and words -> a tokenizer: what a model that is made from its config reads and writes.

The tokenizer is a Unigram model, so any text becomes tokens by itself (whole words where the vocabulary has them, else
characters) and decoding gives the text back. A character outside printable ASCII becomes ``<unk>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omr_runtime.models.families.idefics import AROUND, WHOLE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|im_end|>"
IMAGE = "<|image_pad|>"
VIDEO = "<|video_pad|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"

SPECIAL = ("<|endoftext|>", "<|im_start|>", END)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

_SHAPES_WORDS = (
    "How many", "Is there", "Which", "What", "more", " are there", "?",
    "circle", "square", "triangle", "circles", "squares", "triangles",
    "red", "green", "blue", "yellow", "none", "yes", "no", "system", "user", "assistant",
)  # fmt: skip
_CHARACTERS = (*(chr(code) for code in range(32, 127)), "\n")


@dataclass(frozen=True, slots=True)
class Marks:
    """What a family's tokenizer has for images: special tokens, what the chat template writes for an image, further words,
    and tokens that its processor asks for by a name."""

    tokens: tuple[str, ...]
    image: str
    words: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)


_TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))

_GEMMA = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}

_BLANK_LINES = ("\n\n", "\n\n\n", "\n\n\n\n")
"""Gemma's tokenizer has a token for each, which vLLM asks for."""

QWEN = Marks((VISION_START, VISION_END, IMAGE, VIDEO), VISION_START + IMAGE + VISION_END)
MARKS: Mapping[str, Marks] = {
    "qwen2": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": QWEN,
    "llava": Marks(("<image>",), "<image>"),
    "llava_onevision": Marks(("<image>", "<video>"), "<image>"),
    "smolvlm": Marks((AROUND, WHOLE, *_TILES, "<image>"), "<image>", ("\n\n",)),
    "gemma3": Marks(tuple(_GEMMA.values()), _GEMMA["boi_token"], _BLANK_LINES, named=_GEMMA),
}

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{- 'IMAGE' -}}"
    "{%- else -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def _pieces(vocabulary: str) -> list[tuple[str, float]]:
    """Words with and without the blank before them, then characters, each with its log-probability.

    One word costs less than its first character alone, so the longest words always win.
    """
    words = _SHAPES_WORDS if vocabulary == "shapes" else ("system", "user", "assistant")
    spaced = [word if word.startswith(" ") else f" {word}" for word in words]
    unique = dict.fromkeys([*words, *spaced])
    return [(word, -1.0) for word in unique if len(word) > 1] + [(c, -3.0) for c in _CHARACTERS]


def make_tokenizer(vocabulary: str, family: str = "qwen2") -> PreTrainedTokenizerFast:
    """The tokenizer of the named vocabulary (``shapes`` or ``characters``) with the family's marks of images, a chat
    template and a pad token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    marks = MARKS[family]
    pieces = [*_pieces(vocabulary), *((word, -1.0) for word in marks.words)]
    tokenizer = Tokenizer(models.Unigram([("<unk>", -100.0), *pieces], unk_id=0))
    tokenizer.decoder = decoders.Fuse()
    special = (*SPECIAL, *marks.tokens)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.add_tokens([AddedToken(text, special=False) for text in TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token=END,
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        extra_special_tokens=dict(marks.named),
    )
    fast.chat_template = CHAT_TEMPLATE.replace("IMAGE", marks.image)
    return fast
