"""Rows and a teacher -> samples, each paid for once per state folder, whichever stage or recipe asks for it.

A group is everything that the samples of one stage share: the model, the decoding and the seed. Within it a sample's
key is the question as the model sees it, and its index. So resuming is the difference between what is wanted and what
is there, and raising ``n`` from 4 to 8 asks for the new four.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias, assert_never

from omr_runtime import chat
from omr_runtime.engines.protocol import Completion, Decoding, Engine, EngineDied, Request
from omr_runtime.errors import Resumable
from omr_runtime.identity import digest, sample_id
from omr_runtime.keeper import WIND_DOWN
from omr_runtime.sample_store import SampleStore
from omr_runtime.store import ImageStore
from omr_runtime.work import Progress, Work, write_atomic
from omrlang.schema import Eval, Sample
from omrlang.types import (
    FolderModel,
    Fresh,
    HfModel,
    Model,
    ModelRef,
    OpenAI,
    Prompt,
    Scripted,
    TrainedModel,
    WheelModel,
)

Row: TypeAlias = dict[str, Any]
SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class Question:
    """An input row as the model sees it: ``key`` is the same for rows that look the same to it."""

    row: Row
    key: str
    refused: str | None = None


def sample_rows(
    work: Work,
    rows: Sequence[Row],
    prompt: Prompt,
    model: ModelRef,
    decoding: Decoding,
    n: int,
) -> Iterator[Row]:
    """``n`` sampled rows for each row, in the order of the rows and then of the samples.

    What the state folder lacks is generated first. A sample that could not be had is a row with ``finish`` = error,
    no response, and its reason under the key ``error`` (which the row schema does not have; None otherwise).
    Raises EngineDied when the engine ends; what was finished until then is kept.
    """
    group = sampling_group(work, model, decoding)
    store = SampleStore(Path(work.state) / "store" / "samples" / ledger_name(work, model, decoding))
    questions = [_question(row, prompt) for row in rows]
    wanted = _missing(questions, store, n)
    if wanted:
        write_atomic(store.folder / "group.json", json.dumps(group, indent=1).encode())
        _generate(work, store, _requests(work, wanted, prompt, decoding), model, len(rows) * n)
    yield from _assemble(questions, store, prompt, n, _plain(group))


# ---- names -----------------------------------------------------------------------------------------------------


def ledger_name(work: Work, model: ModelRef, decoding: Decoding) -> str:
    """The folder below ``store/samples`` where the stage's samples lie."""
    return digest("group", _plain(sampling_group(work, model, decoding)))


def sampling_group(work: Work, model: ModelRef, decoding: Decoding) -> dict[str, Any]:
    """What decides a sample besides its question and its index."""
    return {
        "model": _identity(work, model),
        "decoding": asdict(decoding),
        "seed": work.stage.spec.seed,
    }


def _identity(work: Work, model: ModelRef) -> str:
    """The same weights have the same name, wherever they lie."""
    match model:
        case TrainedModel():
            return f"stage {work.fingerprints[model.stage]}"
        case Model():
            return f"{_source_identity(work, model)} {model.precision}{_served_name(work, model)}"
        case _:
            assert_never(model)


def _source_identity(work: Work, model: Model) -> str:
    match model.source:
        case FolderModel(path=path):
            folder = Path(work.base) / Path(path).expanduser()
            files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
            marks = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
            return f"folder {digest('folder', marks)}" if files else f"folder {path}"
        case HfModel() | WheelModel() | Fresh() | Scripted() as source:
            return source.model_dump_json()
        case _:
            assert_never(model.source)


def _served_name(work: Work, model: Model) -> str:
    """What a server calls the model, where it is one that is asked."""
    spec = work.stage.spec
    settings = (spec.engine if isinstance(spec, Sample | Eval) else None) or model.engine
    if isinstance(settings, OpenAI):
        return f" as {settings.model or model.name}"
    return ""


def _plain(group: dict[str, Any]) -> str:
    return json.dumps(group, sort_keys=True)


def _question(row: Row, prompt: Prompt) -> Question:
    """Rows that the prompt cannot show get a key of their own and the reason."""
    try:
        shown = json.dumps(chat.messages(row, prompt), sort_keys=True)
    except chat.UnusableRow as error:
        return Question(row, digest("unusable", row["id"]), str(error))
    images = list(row.get("images") or ())
    return Question(row, digest("question", row.get("content"), shown, images))


def first_seed(seed: int, key: str) -> int:
    """The seed of a question's sample 0; sample i has the number i above it."""
    return int(sha256(f"{seed}|sample|{key}".encode()).hexdigest()[:12], 16) % (SEEDS - 2**20)


# ---- asking ----------------------------------------------------------------------------------------------------


def _missing(
    questions: Sequence[Question], store: SampleStore, n: int
) -> list[tuple[Question, tuple[int, ...]]]:
    """Each different question with the indices that the store lacks."""
    different = {q.key: q for q in questions if q.refused is None}
    lacking = [
        (question, tuple(i for i in range(n) if (key, i) not in store))
        for key, question in different.items()
    ]
    return [(question, indices) for question, indices in lacking if indices]


def _requests(
    work: Work,
    wanted: Sequence[tuple[Question, tuple[int, ...]]],
    prompt: Prompt,
    decoding: Decoding,
) -> list[Request]:
    """Longest questions first, so that none of them is what everyone waits for at the end."""
    images = ImageStore(work.state)
    made = []
    for question, indices in wanted:
        start = first_seed(work.stage.spec.seed, question.key)
        paths = tuple(images.path(name) for name in question.row.get("images") or ())
        seeds = tuple(start + index for index in indices)
        made.append(Request(question.key, question.row, prompt, indices, seeds, decoding, paths))
    return sorted(made, key=_length, reverse=True)


def _length(request: Request) -> int:
    return sum(len(text) for text in [request.row["question"], *(request.row.get("options") or ())])


def _open(work: Work, model: ModelRef, max_tokens: int) -> Engine:
    from omr_runtime.engines import open_engine

    spec = work.stage.spec
    settings = spec.engine if isinstance(spec, Sample | Eval) else None
    served = model if isinstance(model, Model) else Path(work.model_folders[model.stage])
    return open_engine(
        served, settings, state=Path(work.state), base=Path(work.base), max_tokens=max_tokens
    )


class _Meter:
    """Counts what is done, for the progress line."""

    def __init__(self, work: Work, store: SampleStore, done: int, total: int) -> None:
        self.progress, self.store = Progress(work.progress), store
        self.done, self.total, self.num_tokens, self.num_failed = done, total, 0, 0
        self.started = time.monotonic()
        self.progress.update(done, total, "samples")

    def take(self, completion: Completion) -> None:
        self.store.add(completion)
        self.done += 1
        self.num_tokens += completion.num_tokens
        self.num_failed += completion.finish == "error"
        self.progress.update(self.done, self.total, "samples", **self.figures())

    def kept(self) -> str:
        return f"{self.done - self.num_failed:,} of {self.total:,} samples are kept"

    def figures(self) -> dict[str, float]:
        elapsed_s = max(time.monotonic() - self.started, 1e-6)
        return {"tokens_per_s": self.num_tokens / elapsed_s, "failed": float(self.num_failed)}


def _generate(
    work: Work, store: SampleStore, requests: Sequence[Request], model: ModelRef, total: int
) -> None:
    """Have all requests answered. Whatever ends this, finished samples are on disk after it."""
    engine = _open(work, model, requests[0].decoding.max_tokens)
    store.engine = f"{engine.name} {engine.version}"
    asked = sum(len(request.indices) for request in requests)
    meter = _Meter(work, store, total - asked, total)
    with winding_down() as stop:
        try:
            engine.generate(_until(stop, requests), meter.take)
        except EngineDied as error:
            raise EngineDied(f"{error}; {meter.kept()}") from error
        finally:
            store.flush()
            engine.close()
    if stop.is_set() and meter.done < total:
        raise Resumable(f"interrupted; {meter.kept()}")
    _check_complete(requests, store)


@contextlib.contextmanager
def winding_down() -> Iterator[threading.Event]:
    """An event that is set when the driver asks to begin nothing new."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(WIND_DOWN, lambda number, frame: stop.set())
    try:
        yield stop
    finally:
        signal.signal(WIND_DOWN, before)


def _until(stop: threading.Event, requests: Iterable[Request]) -> Iterator[Request]:
    return itertools.takewhile(lambda request: not stop.is_set(), requests)


def _check_complete(requests: Sequence[Request], store: SampleStore) -> None:
    for request in requests:
        for index in request.indices:
            key = (request.key, index)
            assert key in store or key in store.errors, (
                f"{store.engine} forgot a sample of {request.key}"
            )


# ---- rows ------------------------------------------------------------------------------------------------------


def _assemble(
    questions: Sequence[Question], store: SampleStore, prompt: Prompt, n: int, group: str
) -> Iterator[Row]:
    label = chat.prompt_label(prompt)
    for question in questions:
        key = digest("sampling", group, question.key)
        for index in range(n):
            row = question.row | {
                "id": sample_id(question.row["id"], key, index),
                "parent": question.row["id"],
                "prompt": label,
                "sample_index": index,
            }
            if (question.key, index) in store:
                yield row | _answered(store.get(question.key, index), prompt)
            else:
                reason = question.refused or store.errors[question.key, index]
                yield row | _UNANSWERED | {"error": reason}


_UNANSWERED: Row = {
    "response": None, "thinking": None, "final_answer": None, "num_tokens": None, "finish": "error",
    "engine": None,
}  # fmt: skip


def _answered(sample: Mapping[str, Any], prompt: Prompt) -> Row:
    parsed = chat.parse_response(sample["text"], prompt)
    return {
        "response": sample["text"],
        "thinking": parsed.thinking,
        "final_answer": parsed.final_answer,
        "num_tokens": sample["num_tokens"],
        "num_prompt_tokens": sample["num_prompt_tokens"],
        "finish": sample["finish"],
        "engine": sample["engine"],
        "error": None,
    }
