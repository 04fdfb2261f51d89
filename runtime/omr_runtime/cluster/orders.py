"""What a worker of a cluster is told to be: an engine that samples, or a cascade that verifies, with the files that it needs.

An order is made where the stage runs and opened on a node. Where the node does not see the state folder, the files of
``parcel`` are laid below a folder of its own first, and ``open`` is told that folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from omr_runtime.engines.protocol import Completion, Engine, Request
from omr_runtime.store import Media
from omr_runtime.verify.cascade import Cascade
from omr_runtime.work import InputRows, Work, read_rows
from omrlang.patterns import at_home
from omrlang.types import Engine as EngineSettings
from omrlang.types import FolderModel, Model, ModelRef, Prompt, RowExpr, TrainedModel
from omrlang.walk import calls

Unit: TypeAlias = tuple[int, Any]
"""A piece of work with the number of its lease."""

Report: TypeAlias = Callable[[int, int, Any], None]
"""Told of each finished part: the number of the unit, which part of it, and what came out."""

File: TypeAlias = tuple[str, Path]
"""Where a file goes below the worker's own folder, and where it lies here."""


class Bench(Protocol):
    """What does the work on a node. ``name`` and ``version`` are those of its engine."""

    name: str
    version: str

    def serve(self, units: Iterator[Unit], report: Report) -> None:
        """Do all units, taking each only when it can be begun."""
        ...

    def close(self) -> None: ...


class Order(Protocol):
    def parcel(self) -> list[File]: ...

    def open(self, root: Path | None) -> Bench:
        """``root`` is where the parcel lies; None where the state folder is seen. RunError as the stage would raise it."""
        ...


# ---- sampling ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SamplingOrder:
    """``folder`` holds the weights of a model that a stage trained; ``model`` is one that is declared."""

    model: Model | None
    folder: str | None
    settings: EngineSettings | None
    max_tokens: int
    state: str
    base: str

    @staticmethod
    def of(
        work: Work, model: ModelRef, settings: EngineSettings | None, max_tokens: int
    ) -> SamplingOrder:
        given = (settings, max_tokens, work.state, work.base)
        if isinstance(model, TrainedModel):
            return SamplingOrder(None, work.model_folders[model.stage], *given)
        if isinstance(model.source, FolderModel):
            path = str(Path(work.base) / at_home(model.source.path))
            model = model.model_copy(update={"source": FolderModel(path=path)})
        return SamplingOrder(model, None, *given)

    @property
    def _weights(self) -> str | None:
        if self.model is not None and isinstance(self.model.source, FolderModel):
            return self.model.source.path
        return self.folder

    def parcel(self) -> list[File]:
        return files_below(Path(self._weights), "model") if self._weights else []

    def open(self, root: Path | None) -> SamplingBench:
        from omr_runtime.engines import open_engine

        here = self if root is None else self._moved(root)
        served = here.model if here.model is not None else Path(here.folder or "")
        engine = open_engine(
            served,
            here.settings,
            state=Path(here.state),
            base=Path(here.base),
            max_tokens=here.max_tokens,
        )
        return SamplingBench(engine)

    def _moved(self, root: Path) -> SamplingOrder:
        moved = replace(self, state=str(root / "state"), base=str(root))
        if self.folder is not None:
            return replace(moved, folder=str(root / "model"))
        if self.model is not None and isinstance(self.model.source, FolderModel):
            source = FolderModel(path=str(root / "model"))
            return replace(moved, model=self.model.model_copy(update={"source": source}))
        return moved


class SamplingBench:
    """An engine; a unit is a request, a part of it one sample."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.version = engine, engine.name, engine.version

    def serve(self, units: Iterator[Unit], report: Report) -> None:
        numbers: dict[str, int] = {}

        def requests() -> Iterator[Request]:
            for number, request in units:
                numbers[request.key] = number
                yield request

        def done(completion: Completion) -> None:
            report(numbers[completion.key], completion.index, completion)

        self.engine.generate(requests(), done)

    def close(self) -> None:
        self.engine.close()


# ---- verification --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerifyingOrder:
    work: Work
    expr: RowExpr
    prompt: Prompt | None

    @property
    def looks_at_images(self) -> bool:
        return any(
            call.fn == "seen_in" and any(name == "image" for name, _ in call.named)
            for call in calls(self.expr.tree)
        )

    def parcel(self) -> list[File]:
        asked = list(calls(self.expr.tree))
        files: list[File] = []
        for name in dict.fromkeys(stage for call in asked for stage in call.stages):
            files += self._rows_of(name)
        for model in [call.model for call in asked if call.model is not None]:
            files += self._model(model)
        base = Path(self.work.base)
        for verifier in [call.verifier for call in asked if call.verifier is not None]:
            below = Path(verifier.folder)
            files += [(f"base/{below / f}", base / below / f) for f in verifier.files]
        return list(dict.fromkeys(files))

    def _rows_of(self, name: str) -> list[File]:
        entry = self.work.rows_of(name)
        files = files_below(Path(entry.folder), f"rows/{name}")
        return files + (self._images(entry) if self.looks_at_images else [])

    def _images(self, entry: InputRows) -> list[File]:
        from omr_runtime.store import ImageStore

        store = ImageStore(self.work.state)
        names = {image for row in read_rows([entry], ["images"]) for image in row["images"] or ()}
        return [(image_name(name), store.path(name)) for name in sorted(names)]

    def _model(self, model: ModelRef) -> list[File]:
        if isinstance(model, TrainedModel):
            return files_below(Path(self.work.model_folders[model.stage]), f"models/{model.stage}")
        source, base = model.source, Path(self.work.base)
        if isinstance(source, FolderModel) and not at_home(source.path).is_absolute():
            return files_below(base / source.path, f"base/{source.path}")
        return []

    def open(self, root: Path | None) -> VerifyingBench:
        from omr_runtime.verify.asking import cascade_for

        work = self.work if root is None else self._moved(root)
        cascade = cascade_for(work, self.expr, self.prompt, num_workers=1)
        cascade.__enter__()
        return VerifyingBench(cascade)

    def _moved(self, root: Path) -> Work:
        work = self.work
        rows = [(entry, str(root / "rows" / entry.name)) for entry in (*work.inputs, *work.others)]
        return work.model_copy(
            update={
                "state": str(root / "state"),
                "base": str(root / "base"),
                "inputs": (),
                "others": tuple(entry.model_copy(update={"folder": path}) for entry, path in rows),
                "model_folders": {name: str(root / "models" / name) for name in work.model_folders},
            }
        )


class VerifyingBench:
    """A cascade; a unit is a slice of rows, and has one part."""

    name = "verify"
    version = "1"

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    def serve(self, units: Iterator[Unit], report: Report) -> None:
        for number, part in units:
            report(number, 0, list(self.cascade.evaluate(part.rows)))

    def close(self) -> None:
        self.cascade.__exit__(None, None, None)


# ---- files ---------------------------------------------------------------------------------------------------------


def files_below(folder: Path, name: str) -> list[File]:
    """All files of a folder, to be laid below ``name``."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(f"{name}/{path.relative_to(folder)}", path) for path in found]


def image_name(digest: str) -> str:
    """Where an image lies below a worker's folder, as in a state folder."""
    return f"state/store/images/{digest[:2]}/{digest}"


def media_name(kind: Media, digest: str) -> str:
    """The same of a video or an audio file."""
    return f"state/store/{kind}/{digest[:2]}/{digest}"


def images_of(request: Request) -> list[File]:
    """The files that a request shows."""
    heard: dict[Media, tuple[Path, ...]] = {"videos": request.videos, "audios": request.audios}
    shown = [(image_name(path.name), path) for path in request.images]
    media = [(media_name(kind, path.name), path) for kind in heard for path in heard[kind]]
    return shown + media


def with_images_below(work: Any, root: Path) -> Any:
    """A request with its files where ``images_of`` lays them; anything else as it is."""
    if not isinstance(work, Request):
        return work
    return replace(
        work,
        images=tuple(root / image_name(path.name) for path in work.images),
        videos=tuple(root / media_name("videos", path.name) for path in work.videos),
        audios=tuple(root / media_name("audios", path.name) for path in work.audios),
    )


def asked_judges(expr: RowExpr) -> Iterable[ModelRef]:
    """The models that an expression asks to generate."""
    return [call.model for call in calls(expr.tree) if call.fn == "judge" and call.model]
