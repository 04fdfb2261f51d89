"""``sample NAME from ROWS with TEACHER on HARDWARE { … }``: reasoning traces, ``n`` for each input row."""

from __future__ import annotations

from typing import Annotated, Literal

from omrlang.schema.stage import StageSpec
from omrlang.types import Clause, Engine, Enough, Hardware, ModelRef, Prompt, Setting


class Decoding(StageSpec):
    """How text is drawn from a model: the same names on ``sample``, ``rl`` and ``eval``."""

    temperature: Annotated[float, Setting(cls="rows", ge=0, doc="0 is greedy")]
    top_p: Annotated[
        float,
        Setting(
            cls="rows", gt=0, le=1, doc="nucleus: the smallest set of tokens with this probability"
        ),
    ] = 1.0
    top_k: Annotated[
        int | None, Setting(cls="rows", ge=1, doc="only the k likeliest tokens; none is all")
    ] = None
    min_pixels: Annotated[
        int | None,
        Setting(cls="rows", unit="pixels", ge=1, doc="smaller images are enlarged to this area"),
    ] = None
    max_pixels: Annotated[
        int | None,
        Setting(cls="rows", unit="pixels", ge=1, doc="larger images are shrunk to this area"),
    ] = None
    engine: Annotated[
        Engine | None,
        Setting(
            cls="speed", doc="who generates; default vLLM where it is installed, else transformers"
        ),
    ] = None


class Sample(Decoding):
    kind: Literal["sample"] = "sample"

    rows: Annotated[str, Clause("from", "rows", "the stage whose rows are asked")]
    model: Annotated[ModelRef, Clause("with", "rows", "the teacher")]
    hardware: Annotated[Hardware | None, Clause("on", "speed", "default this machine")] = None
    n: Annotated[int, Setting(cls="rows", ge=1, doc="samples for each input row")]
    until: Annotated[
        Enough | None,
        Setting(
            cls="rows",
            doc="`4 of (EXPR)`: no further samples of a question once so many satisfy the condition, at most `n`",
        ),
    ] = None
    prompt: Annotated[Prompt, Setting(cls="rows", doc="system prompt and reasoning format")]
    max_tokens: Annotated[int, Setting(cls="rows", unit="tokens", ge=1, doc="longest response")]
