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
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, assert_never

import pyarrow.compute as pc

from omr_runtime import chat
from omr_runtime.cluster import place_of
from omr_runtime.engines.protocol import Completion, Decoding, Engine, EngineDied, Request
from omr_runtime.errors import Resumable
from omr_runtime.identity import digest, sample_id
from omr_runtime.keeper import WIND_DOWN
from omr_runtime.questions import Asking, Questions, Row, SpanOf, Wanted, missing, requests
from omr_runtime.sample_store import SampleStore, tag_of, tags
from omr_runtime.store import MEDIA, ImageStore, MediaStore
from omr_runtime.work import Progress, Work, write_atomic
from omrlang.patterns import at_home
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


def sample_rows(
    work: Work,
    rows: Iterable[Row],
    prompt: Prompt,
    model: ModelRef,
    decoding: Decoding,
    n: int,
) -> Iterator[Row]:
    """``n`` sampled rows for each row, in the order of the rows and then of the samples.

    What the state folder lacks is generated first. Raises EngineDied when the engine ends; what was finished until
    then is kept.
    """
    with Ledger.of(work, rows, prompt, model, decoding) as ledger:
        ledger.ask(lambda number: range(n), len(ledger.questions) * n)
    yield from ledger.samples(lambda number: range(n))


@dataclass(frozen=True, slots=True)
class Ledger:
    """The samples that a stage has of its rows. ``rows`` are gone through several times and never held.

    Ask within ``with``: the engine is opened for the first sample that is missing, and stands until the end of it.
    """

    work: Work
    rows: Iterable[Row]
    prompt: Prompt
    model: ModelRef
    decoding: Decoding
    questions: Questions
    store: SampleStore
    engines: list[Engine] = field(default_factory=list)

    @staticmethod
    def of(
        work: Work, rows: Iterable[Row], prompt: Prompt, model: ModelRef, decoding: Decoding
    ) -> Ledger:
        folder = Path(work.state) / "store" / "samples" / ledger_name(work, model, decoding)
        questions = Questions.of(rows, prompt)
        return Ledger(work, rows, prompt, model, decoding, questions, SampleStore(folder))

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.engines:
            self.engines.pop().close()

    def engine(self) -> Engine:
        """The one that stands, else a new one."""
        if not self.engines:
            self.engines.append(_open(self.work, self.model, self.decoding.max_tokens))
        return self.engines[-1]

    def ask(self, span_of: SpanOf, total: int) -> None:
        """Have generated what is missing of these samples, of ``total`` that the stage has in all."""
        wanted = missing(self.questions, self.store, span_of)
        if not wanted.numbers:
            return
        group = sampling_group(self.work, self.model, self.decoding)
        write_atomic(self.store.folder / "group.json", json.dumps(group, indent=1).encode())
        images = ImageStore(self.work.state)
        media = {kind: MediaStore(self.work.state, kind) for kind in MEDIA}
        asking = Asking(self.prompt, self.decoding, self.work.stage.spec.seed, images, media)
        folder = Path(self.work.out) / "asked"
        asked = requests(self.rows, self.questions, wanted, asking, folder)
        _generate(self, asked, wanted, total)
        _check_complete(self.questions, wanted, self.store)

    def samples(self, span_of: SpanOf) -> Iterator[Row]:
        """The sampled rows with these indices, in the order of the rows.

        A sample that could not be had is a row with ``finish`` = error, no response, and its reason under the key
        ``error`` (which the row schema does not have; None otherwise).
        """
        group = _plain(sampling_group(self.work, self.model, self.decoding))
        label = chat.prompt_label(self.prompt)
        spans = ((number, span_of(number)) for number in range(len(self.questions)))
        names = self.questions.names(spans)
        found = self.store.read(names, Path(self.work.out) / "answers")
        for number, row in enumerate(self.rows):
            key = digest("sampling", group, self.questions.key(number).hex())
            for index in span_of(number):
                yield (
                    row
                    | {
                        "id": sample_id(row["id"], key, index),
                        "parent": row["id"],
                        "prompt": label,
                        "sample_index": index,
                    }
                    | self._answer(next(found), number, index)
                )

    def _answer(self, sample: Mapping[str, Any] | None, number: int, index: int) -> Row:
        if sample is not None:
            return _answered(sample, self.prompt)
        questions = self.questions
        reason = questions.refused.get(number) or self.store.error(
            tag_of(questions.key(number), index)
        )
        return _UNANSWERED | {"error": reason or "not sampled in this run"}


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
            folder = Path(work.base) / at_home(path)
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


# ---- asking ----------------------------------------------------------------------------------------------------


def _open(work: Work, model: ModelRef, max_tokens: int) -> Engine:
    from omr_runtime.engines import open_engine

    spec = work.stage.spec
    settings = spec.engine if isinstance(spec, Sample | Eval) else None
    if place_of(work) is not None:
        from omr_runtime.cluster.sampling import ClusterEngine

        return ClusterEngine.of(work, model, settings, max_tokens)
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


def _generate(ledger: Ledger, asked: Generator[Request], wanted: Wanted, total: int) -> None:
    """Have all requests answered. Whatever ends this, finished samples are on disk after it."""
    store = ledger.store
    engine = ledger.engine()
    store.engine = f"{engine.name} {engine.version}"
    meter = _Meter(ledger.work, store, total - wanted.num_samples, total)
    with winding_down() as stop, contextlib.closing(asked):
        try:
            engine.generate(_until(stop, asked), meter.take)
        except EngineDied as error:
            raise EngineDied(f"{error}; {meter.kept()}") from error
        finally:
            store.flush()
    if stop.is_set() and meter.done < total:
        raise Resumable(f"interrupted; {meter.kept()}")


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


def _check_complete(questions: Questions, wanted: Wanted, store: SampleStore) -> None:
    """Whoever was asked has answered, if only with a reason."""
    names = tags(
        tag_of(questions.key(number), index)
        for number, indices in zip(wanted.numbers, wanted.indices, strict=True)
        for index in indices
    )
    for name in names.filter(pc.invert(store.has(names))).to_pylist():
        assert store.error(name), f"{store.engine} forgot a sample of {name.hex()}"


# ---- rows ------------------------------------------------------------------------------------------------------


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
