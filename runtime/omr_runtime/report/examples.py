"""A run's rows to a few of them, whole: what was asked, what was answered, what each rule said, and the images.

Which rows: the first by id, which is a hash, so nobody picked them. All texts are as the rows have them; whoever shows
them escapes them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from omr_runtime import lineage
from omr_runtime.errors import RunError
from omr_runtime.lineage import Reader
from omr_runtime.report import queries
from omr_runtime.report.comparison import score_rule
from omr_runtime.report.ran import Ran
from omr_runtime.store import ImageStore
from omr_runtime.story import stored
from omr_runtime.work import Shards
from omrlang.plan import PlanStage

Outcome = Literal["kept", "dropped", "right", "wrong", "rollout"]

EACH = 2
"""Rows for each reason, or each side of right and wrong."""
MOST_OF_A_STAGE = 8
MOST_LETTERS = 1_500
SIDE_PIXELS = 288
MOST_IMAGES = 4
MOST_IMAGE_BYTES = 2_500_000
"""Of all images of a page together, as they are written into it."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule said of a row; ``ok`` None is unknown."""

    rule: str
    ok: bool | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """``why`` is the reason of a drop or the reward of a rollout. ``images`` are data URLs; ``fields`` name and text."""

    id: str
    stage: str
    outcome: Outcome
    why: str | None
    images: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    said: tuple[Said, ...]


def examples(ran: Ran) -> tuple[Example, ...]:
    """A few rows of every filter, eval and reinforcement stage. RunError where there is no lineage."""
    pictures = Pictures(ImageStore(ran.state.folder))
    with lineage.read(ran.state.lineage) as reader:
        return tuple(
            example
            for stage in ran.plan.stages
            if ran.is_done(stage.name)
            for example in _of_stage(ran, reader, stage, pictures)
        )


def _of_stage(ran: Ran, reader: Reader, stage: PlanStage, pictures: Pictures) -> Iterator[Example]:
    mark = stage.fingerprint
    match stage.spec.kind:
        case "filter":
            for line in queries.decided(reader, mark, EACH)[:MOST_OF_A_STAGE]:
                outcome: Outcome = "kept" if line["reason"] is None else "dropped"
                row = stored(ran.state, reader, line["id"])
                yield _example(reader, stage, row, line["id"], outcome, line["reason"], pictures)
        case "eval":
            for line in queries.scored(reader, mark, score_rule(stage), EACH):
                row = stored(ran.state, reader, line["id"])
                right: Outcome = "right" if line["ok"] else "wrong"
                yield _example(reader, stage, row, line["id"], right, None, pictures)
        case "rl":
            for line in queries.extreme_rollouts(reader, mark, EACH):
                row = stored(ran.state, reader, line["row"]) | _rollout(ran, stage, line["id"])
                why = f"step {line['step']:,}, reward {line['reward']:.3g}, advantage {line['advantage']:.3g}"
                yield _example(reader, stage, row, line["id"], "rollout", why, pictures)
        case _:
            return


def _rollout(ran: Ran, stage: PlanStage, ident: str) -> dict[str, Any]:
    shards = Shards(ran.state.artifact(stage.fingerprint)).read()
    files = [shard.files["rollout"] for shard in shards if "rollout" in shard.files]
    found = lineage.read_parquet(files, 1, ident)
    return {"response": None, "parts": None, **(found[0] if found else {})}


def _example(
    reader: Reader,
    stage: PlanStage,
    row: dict[str, Any],
    ident: str,
    outcome: Outcome,
    why: str | None,
    pictures: Pictures,
) -> Example:
    said = [
        Said(verdict["rule"], verdict["ok"], verdict["reason"])
        for verdict in reader.verdicts_of(ident)
        if verdict["stage"] == stage.fingerprint
    ]
    parts = json.loads(row["parts"]) if row.get("parts") else {}
    said += [Said(name, None if v is None else v == 1.0, f"{v:.3g}") for name, v in parts.items()]
    images = tuple(pictures.take(digest) for digest in (row.get("images") or [])[:MOST_IMAGES])
    shown = tuple(url for url in images if url is not None)
    return Example(ident, stage.name, outcome, why, shown, tuple(_fields(row)), tuple(said))


def _fields(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The columns that a person reads; nothing twice."""
    for name in ("source", "question", "options", "answer", "response"):
        value = row.get(name)
        if value not in (None, [], ""):
            yield name, cut(" · ".join(value) if isinstance(value, list) else str(value))
    if row.get("final_answer") not in (None, ""):
        yield "final answer", cut(str(row["final_answer"]))
    if row.get("num_tokens") is not None:
        yield "tokens", f"{row['num_tokens']:,}"


def cut(text: str) -> str:
    """The start of a long text, with how much is left out."""
    if len(text) <= MOST_LETTERS:
        return text
    return f"{text[:MOST_LETTERS]} … ({len(text) - MOST_LETTERS:,} more characters)"


class Pictures:
    """Stored images to small data URLs, each written anew so that only pixels come through; at most so many bytes."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._left = MOST_IMAGE_BYTES

    def take(self, digest: str) -> str | None:
        """None where the image is gone or damaged, or the page is full."""
        try:
            data = self._small(digest)
        except (RunError, ModuleNotFoundError):
            return None
        if len(data) > self._left:
            return None
        self._left -= len(data)
        return data

    def _small(self, digest: str) -> str:
        image = self._store.open(digest)
        image.thumbnail((SIDE_PIXELS, SIDE_PIXELS))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80, lossless=max(image.size) <= 96)
        return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
