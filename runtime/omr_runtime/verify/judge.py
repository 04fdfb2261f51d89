"""Questions with a true and a given answer to a model's yes or no, through any engine.

A judge is asked once for each distinct triple, at temperature 0, and may only say yes or no. Whatever else comes back
is unknown, never wrong. It sees the extracted answer and not the reasoning, unless the recipe says otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from omr_runtime.engines.protocol import Completion, Decoding, Engine, EngineDied, Request
from omr_runtime.errors import RunError
from omr_runtime.identity import digest
from omrlang.types import Model, ModelRef, OpenAI, Prompt

Triple: TypeAlias = tuple[str | None, str, str]
"""Question (None where the recipe hides it), true answer, given answer."""

PROMPT = Prompt(
    name="judge",
    system="You check answers. A question, its true answer and a given answer are shown. "
    "Say yes if the given answer means the same as the true one, in whatever notation, else no. "
    "Do not solve the question. Answer with one word: yes or no.",
    thinking=None,
)
DECODING = Decoding(temperature=0.0, max_tokens=4, choices=("yes", "no"))


@dataclass(frozen=True, slots=True)
class Opinion:
    """``ok`` is None where the judge gave no yes and no no; ``reason`` then says why."""

    ok: bool | None
    reason: str | None = None


class Judge:
    """One model that is asked. Opinions are remembered as long as the judge stands; unknown ones are not."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self._engine = engine
        self._known: dict[Triple, Opinion] = {}
        self._silent = Opinion(None, f"{name} gave no answer")
        self._is_dead = False

    @property
    def concurrency(self) -> int | None:
        """How many requests servers answer at once; None where the model is served in this process."""
        return getattr(self._engine, "concurrency", None)

    def ask(self, triples: Iterable[Triple]) -> list[Opinion]:
        """An opinion on each, in order. When the engine dies, all that is left is unknown."""
        wanted = list(triples)
        new = [triple for triple in dict.fromkeys(wanted) if triple not in self._known]
        asked = {digest("judge", *triple): triple for triple in new}
        fresh: dict[Triple, Opinion] = {}

        def done(completion: Completion) -> None:
            fresh[asked[completion.key]] = _opinion(completion)

        if asked and not self._is_dead:
            try:
                self._engine.generate([_request(key, one) for key, one in asked.items()], done)
            except EngineDied as error:
                self._is_dead, self._silent = True, Opinion(None, f"{self.name}: {error}")
        self._known |= {triple: found for triple, found in fresh.items() if found.ok is not None}
        return [self._known.get(triple) or fresh.get(triple, self._silent) for triple in wanted]

    def close(self) -> None:
        self._engine.close()


def _request(key: str, triple: Triple) -> Request:
    question, truth, given = triple
    parts = [] if question is None else [f"Question:\n{question}"]
    text = "\n\n".join([*parts, f"True answer:\n{truth}", f"Given answer:\n{given}"])
    row = {"id": key, "question": text, "options": None, "images": None}
    return Request(key, row, PROMPT, (0,), (0,), DECODING)


def _opinion(completion: Completion) -> Opinion:
    if completion.finish == "error":
        return Opinion(None, completion.error or "the judge's engine failed")
    word = re.fullmatch(r"\W*(yes|no)\W*", completion.text, re.IGNORECASE)
    if word is None:
        return Opinion(None, f"neither yes nor no: {completion.text[:40]!r}")
    return Opinion(word[1].casefold() == "yes")


def check_address(model: ModelRef) -> None:
    """RunError where a judge is reached by an address that the environment does not have."""
    engine = model.engine if isinstance(model, Model) else None
    if not isinstance(engine, OpenAI) or engine.url is not None:
        return
    if engine.url_env is None or not os.environ.get(engine.url_env):
        where = f"environment variable {engine.url_env}" if engine.url_env else "setting url"
        raise RunError(f"judge {judge_name(model)}: no address, the {where} is not set")


def judge_name(model: ModelRef) -> str:
    return model.name if isinstance(model, Model) else model.stage
