"""The state folder: where artifacts, images, logs and the index are, and whether they are whole.

Alone knows the folder's layout and the shape of ``index.json``, which is all that a plan reads.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, get_args

from omr_runtime.errors import RunError
from omr_runtime.work import Shards, write_atomic

if TYPE_CHECKING:
    from PIL import Image

INDEX_FORMAT = 1

Media: TypeAlias = Literal["videos", "audios"]
MEDIA: tuple[Media, ...] = get_args(Media)


class State:
    """Paths under one state folder. Makes nothing."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.index = self.folder / "index.json"
        self.lineage = self.folder / "lineage.duckdb"
        self.lock = self.folder / "lock"
        self.plans = self.folder / "plans"

    def artifact(self, fingerprint: str) -> Path:
        return self.folder / "store" / fingerprint

    def model(self, fingerprint: str) -> Path:
        return self.folder / "models" / fingerprint

    def checkpoints(self, fingerprint: str) -> Path:
        return self.folder / "checkpoints" / fingerprint

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def work(self, fingerprint: str) -> Path:
        return self.folder / "work" / f"{fingerprint}.json"

    def progress(self, fingerprint: str) -> Path:
        return self.folder / "work" / f"{fingerprint}.progress"

    def stop(self, fingerprint: str) -> Path:
        """As a work order's ``stop_file``."""
        return self.progress(fingerprint).with_suffix(".stop")


def empty_index() -> dict[str, Any]:
    parts = ("stages", "names", "rates", "previous", "probes", "published")
    return {"format": INDEX_FORMAT, **{part: {} for part in parts}}


def read_index(state: State) -> dict[str, Any]:
    """The index, or an empty one. RunError when it was written by something newer or cannot be read."""
    try:
        index = json.loads(state.index.read_text())
    except FileNotFoundError:
        return empty_index()
    except ValueError as error:
        raise RunError(f"{state.index}: not readable as JSON ({error})") from error
    if index.get("format") != INDEX_FORMAT:
        raise RunError(
            f"{state.index}: format {index.get('format')}, this version reads {INDEX_FORMAT}"
        )
    return {**empty_index(), **index}


def write_index(state: State, index: dict[str, Any]) -> None:
    write_atomic(state.index, json.dumps(index, sort_keys=True).encode())


def mark_damaged(state: State, index: dict[str, Any]) -> list[str]:
    """Set ``files_ok`` to false for each finished stage whose files are not whole; their fingerprints."""
    damaged = []
    for fingerprint, entry in index["stages"].items():
        if entry.get("status") == "done" and entry.get("files_ok", True):
            if is_intact(state, fingerprint, entry):
                continue
            entry["files_ok"] = False
            damaged.append(fingerprint)
    return damaged


def is_intact(state: State, fingerprint: str, entry: dict[str, Any]) -> bool:
    """Whether all shards are there in their sizes, and for a training stage its model."""
    shards = Shards(state.artifact(fingerprint))
    if len(shards.numbers()) != entry.get("num_shards", 0) or not shards.is_intact():
        return False
    trained = entry.get("kind") in ("sft", "rl")
    return not trained or (state.model(fingerprint) / "config.json").exists()


class ImageStore:
    """Each image once, under the sha256 of its bytes: ``store/images/ab/abcd…``."""

    def __init__(self, state: str | Path) -> None:
        self.folder = Path(state) / "store" / "images"

    def put(self, data: bytes) -> str:
        """Keep an image; its digest. RunError when the bytes are no image that can be read."""
        digest = sha256(data).hexdigest()
        path = self.path(digest)
        if not path.exists():
            check_image(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not flushed to disk: thousands of flushes cost minutes, and a file that a power cut
            # emptied is seen when it is opened.
            beside = path.with_name(f".{digest}.{os.getpid()}")
            beside.write_bytes(data)
            os.replace(beside, path)
        return digest

    def path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def open(self, digest: str) -> Image.Image:
        """The image in RGB. RunError when it is gone or damaged."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.path(digest)) as image:
                return image.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise RunError(
                f"{self.path(digest)}: the stored image cannot be read ({error})"
            ) from error


class MediaStore:
    """Videos or audio files, each whole and once, under the sha256 of its bytes: ``store/videos/ab/abcd…``."""

    def __init__(self, state: str | Path, kind: Media) -> None:
        self.folder = Path(state) / "store" / kind

    def put(self, data: BinaryIO) -> str:
        """Keep a file, a block in memory at a time; its digest. RunError where there is nothing in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / f".coming.{os.getpid()}"
        found = sha256()
        with open(beside, "wb") as file:
            while block := data.read(1 << 20):
                found.update(block)
                file.write(block)
            empty = file.tell() == 0
        if empty:
            beside.unlink()
            raise RunError("nothing in it")
        path = self.path(found.hexdigest())
        path.parent.mkdir(exist_ok=True)
        os.replace(beside, path)
        return found.hexdigest()

    def path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest


def check_image(data: bytes) -> None:
    """RunError when the bytes do not decode to a picture of a sane size."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    except UnidentifiedImageError as error:
        raise RunError("no image format that can be read") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise RunError(f"image too large: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RunError(f"damaged image: {error}") from error
