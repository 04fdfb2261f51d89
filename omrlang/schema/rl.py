"""``rl NAME from ROWS with MODEL on HARDWARE { … }``: reinforcement learning from verified answers."""

from __future__ import annotations

from typing import Annotated, Literal

from omrlang.schema.sft import Training
from omrlang.types import (
    Algorithm,
    Amount,
    Clause,
    Engine,
    Order,
    Prompt,
    RowExpr,
    Setting,
    TokenTruncated,
    Unfinished,
    Watch,
)


class Rl(Training):
    kind: Literal["rl"] = "rl"

    rows: Annotated[str, Clause("from", "weights", "rows with questions and answers")]
    prompt: Annotated[
        Prompt, Setting(cls="weights", doc="system prompt and reasoning format of the rollouts")
    ]
    algorithm: Annotated[
        Algorithm, Setting(cls="weights", doc="gspo(…), grpo(…), dr_grpo(…) or dapo(…)")
    ]
    reward: Annotated[
        RowExpr, Setting(cls="weights", doc="a number for each rollout; verifiers count as 1 and 0")
    ]
    group: Annotated[int, Setting(cls="weights", ge=2, doc="rollouts for each prompt")]
    batch: Annotated[
        Amount,
        Setting(cls="weights", units=("prompts",), ge=1, doc="`128 prompts` for each rollout step"),
    ]
    minibatch: Annotated[
        Amount | None,
        Setting(
            cls="weights",
            units=("prompts",),
            ge=1,
            doc="prompts of one optimiser step; default the batch",
        ),
    ] = None
    order: Annotated[
        Order | None,
        Setting(
            cls="weights",
            doc="`ascending(pass_rate(probe_ok))` is a curriculum, the same in every epoch; default the seed's order, new in each",
        ),
    ] = None
    behind: Annotated[
        int,
        Setting(
            cls="weights",
            unit="steps",
            ge=0,
            le=1,
            doc="1 draws the next batch while this one is learned, with the weights before its update; 0 one after the other",
        ),
    ] = 0
    oversample: Annotated[
        Amount | None,
        Setting(
            cls="weights",
            units=("prompts",),
            ge=1,
            doc="so many more than `batch` are under way, and a step learns from those that end first; default none",
        ),
    ] = None
    unfinished: Annotated[
        Unfinished | None,
        Setting(
            cls="weights",
            doc="with `oversample`, what becomes of the others: continue(…) in the next step, the default, or drop()",
        ),
    ] = None
    rollout_correction: Annotated[
        TokenTruncated | None,
        Setting(
            cls="weights",
            doc="token_truncated(cap): weights for what the engine draws otherwise than the trainer would; default no weights",
        ),
    ] = None
    temperature: Annotated[
        float, Setting(cls="weights", gt=0, doc="of the rollouts, and of the log-probs")
    ]
    top_p: Annotated[float, Setting(cls="weights", gt=0, le=1, doc="of the rollouts")] = 1.0
    top_k: Annotated[
        int | None, Setting(cls="weights", ge=1, doc="of the rollouts; none is all")
    ] = None
    max_prompt: Annotated[
        int,
        Setting(
            cls="weights",
            unit="tokens",
            ge=1,
            doc="longer prompts are dropped with the reason prompt_too_long",
        ),
    ]
    max_response: Annotated[int, Setting(cls="weights", unit="tokens", ge=1, doc="longest rollout")]
    min_pixels: Annotated[
        int | None,
        Setting(cls="weights", unit="pixels", ge=1, doc="smaller images are enlarged to this area"),
    ] = None
    max_pixels: Annotated[
        int | None,
        Setting(cls="weights", unit="pixels", ge=1, doc="larger images are shrunk to this area"),
    ] = None
    watch: Annotated[
        Watch | None,
        Setting(
            cls="speed",
            doc="`watch { every = 16 steps, from = [held_out] }`: validation with the policy of that step; changes no weight",
        ),
    ] = None
    engine: Annotated[
        Engine | None,
        Setting(
            cls="speed",
            doc="who rolls out; default vLLM where it is installed and can, else transformers",
        ),
    ] = None
