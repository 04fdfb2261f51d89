"""A declared model -> a folder with its weights and tokenizer, made once per state folder.

What is made here stands under ``STATE/models/<digest of its source>``, written beside and renamed. A folder that is
given, or a snapshot of the hub's own cache, is used where it lies.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, assert_never

from omr_runtime.errors import RunError
from omr_runtime.identity import digest
from omr_runtime.models.fresh import make_fresh
from omr_runtime.models.load import read_config
from omr_runtime.models.wheel import make_from_wheel
from omrlang.patterns import at_home
from omrlang.types import FolderModel, Fresh, HfModel, Model, Scripted, WheelModel

FORMAT = 3
"""Raised when the same source is turned into other files, so that older folders are not used."""

HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]
"""What is fetched from a hub: weights as safetensors and plain text, never pickles or code."""

TOKENIZER_FILES = ["*.json", "*.txt", "*.jinja", "*.model"]
"""The same without the weights: enough to count tokens of the largest teacher."""


def materialise(model: Model, state: Path, base: Path | None = None) -> Path:
    """The model's folder, made if it is not there yet. A relative ``folder(…)`` starts at ``base``.

    RunError says which model could not be had and why.
    """
    source = model.source
    match source:
        case HfModel():
            return _from_hub(model.name, source, HUB_FILES)
        case FolderModel():
            return _given(source, base)
        case WheelModel() | Fresh():
            return _made(model, source, state)
        case Scripted():
            raise RunError(
                f"model {model.name}: scripted({source.name}) is a program and has no weights; "
                "it can only be a teacher in `sample`"
            )
        case _:
            assert_never(source)


def tokenizer_folder(model: Model, state: Path, base: Path | None = None) -> Path:
    """A folder that holds the model's tokenizer; its weights are not fetched for that."""
    if isinstance(model.source, HfModel):
        return _from_hub(model.name, model.source, TOKENIZER_FILES)
    return materialise(model, state, base)


def model_digest(model: Model) -> str:
    """What names the model's folder: its source and precision."""
    return digest("model", FORMAT, model.source.model_dump_json(), model.precision)


def _made(model: Model, source: WheelModel | Fresh, state: Path) -> Path:
    folder = state / "models" / model_digest(model)
    if (folder / "config.json").exists():
        return folder
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        if isinstance(source, Fresh):
            make_fresh(source, beside)
        else:
            make_from_wheel(source, beside, state / "downloads", model.precision)
        _move(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _move(beside: Path, folder: Path) -> None:
    """Rename, unless another process was first."""
    try:
        os.rename(beside, folder)
    except OSError:
        if not (folder / "config.json").exists():
            raise


def _given(source: FolderModel, base: Path | None) -> Path:
    folder = (base or Path()) / at_home(source.path)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; the model was to be read from it")
    read_config(folder)
    return folder.resolve()


def _from_hub(name: str, source: HfModel, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"model {name}: {source.id}" + (f"@{source.revision}" if source.revision else "")
    settings: dict[str, Any] = {"revision": source.revision, "allow_patterns": files}
    try:
        return Path(snapshot_download(source.id, **settings))
    except GatedRepoError:
        raise RunError(
            f"{where} is gated on the hub; its terms are accepted there, with a token in HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise RunError(f"{where}: the hub has no such revision") from None
    except RepositoryNotFoundError:
        raise RunError(f"{where}: the hub has no such model, or it is private") from None
    except LocalEntryNotFoundError:
        raise RunError(
            f"{where} is not in the local cache and the hub cannot be reached (offline)"
        ) from None
    except HFValidationError as error:
        raise RunError(f"{where}: not a name that a hub could have: {error}") from None
    except (HfHubHTTPError, OSError) as error:
        raise RunError(f"{where} could not be fetched from the hub: {error}") from error
