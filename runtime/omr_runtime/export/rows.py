"""A stage's rows -> Parquet files as `datasets` writes them, each picture's bytes in the row that shows it.

A batch of rows is in memory at a time, whatever their number, and of their files a piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omr_runtime.errors import DamagedArtifact, RunError
from omr_runtime.store import MEDIA, ImageStore, MediaStore
from omr_runtime.work import ROW, Shards

BATCH_ROWS = 256
PIECE_BYTES = 128 * 2**20
"""Files of so many bytes are in memory at a time, or those of one row."""

MOST_BYTES = 2**31 - 2**20
"""What one value of Arrow's may hold, less what is around the files of a row."""

FILE_BYTES = 400 * 2**20
"""A file is closed once it is this long."""

FILES = {"images": "Image", "videos": "Video", "audios": "Audio"}
"""Columns of files, and what `datasets` calls them."""

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TYPES = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64"}


@dataclass(frozen=True, slots=True)
class File:
    """``name`` is below the dataset's folder."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


def write_rows(shards: Shards, images: ImageStore, folder: Path) -> tuple[list[File], list[str]]:
    """All rows under ``folder/data``; the files and their columns, those that are empty in every row left out."""
    parts = [shard.files["row"] for shard in shards.read() if "row" in shard.files]
    columns = _columns(parts)
    schema = _schema(columns)
    (folder / "data").mkdir(parents=True)
    written: list[tuple[Path, int]] = []
    batches = _batches(parts, columns, images, schema)
    while (first := next(batches, None)) is not None:
        path = folder / "data" / f"{len(written):05d}"
        written.append((path, _write_file(path, first, batches, schema)))
    if not written:
        path = folder / "data" / "00000"
        pq.write_table(schema.empty_table(), path)
        written.append((path, 0))
    return [
        _named(path, number, len(written), rows) for number, (path, rows) in enumerate(written)
    ], columns


def _write_file(
    path: Path, first: pa.RecordBatch, batches: Iterator[pa.RecordBatch], schema: pa.Schema
) -> int:
    """The first batch and those that follow until the file is long enough; how many rows."""
    num_rows = 0
    with open(path, "wb") as sink, pq.ParquetWriter(sink, schema) as writer:
        batch: pa.RecordBatch | None = first
        while batch is not None:
            writer.write_batch(batch)
            num_rows += batch.num_rows
            batch = next(batches, None) if sink.tell() < FILE_BYTES else None
    return num_rows


def _named(path: Path, number: int, total: int, num_rows: int) -> File:
    """Under the name by which `datasets` finds a split."""
    name = f"data/train-{number:05d}-of-{total:05d}.parquet"
    final = path.parent.parent / name
    path.rename(final)
    return File(name, num_rows, final.stat().st_size, _digest(final))


def _digest(path: Path) -> str:
    found = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _columns(parts: Sequence[Path]) -> list[str]:
    """The columns that hold anything, by the statistics that Parquet keeps."""
    filled: set[str] = set()
    for part in parts:
        found = pq.read_metadata(part)
        for group in range(found.num_row_groups):
            for at in range(found.num_columns):
                column = found.row_group(group).column(at)
                stats = column.statistics
                if (
                    stats is None
                    or stats.null_count is None
                    or stats.null_count < column.num_values
                ):
                    filled.add(column.path_in_schema.split(".")[0])
    return [name for name in ROW.names if name in filled] or ["id"]


def _schema(columns: Sequence[str]) -> pa.Schema:
    fields = [
        pa.field(name, pa.list_(PICTURE)) if name in FILES else ROW.field(name) for name in columns
    ]
    told = {"info": {"features": {field.name: _feature(field) for field in fields}}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(told)})


def _feature(field: pa.Field) -> dict[str, Any]:
    """The type as `datasets` calls it."""
    if field.name in FILES:
        return {"feature": {"_type": FILES[field.name]}, "_type": "List"}
    if pa.types.is_list(field.type):
        return {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    return {"dtype": _TYPES[field.type], "_type": "Value"}


def _batches(
    parts: Sequence[Path], columns: list[str], images: ImageStore, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for part in parts:
        try:
            with pq.ParquetFile(part, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                    for piece in _pieces(batch, images):
                        yield _with_pictures(piece, images, schema)
        except (OSError, pa.ArrowException) as error:
            raise DamagedArtifact(part) from error


def _pieces(batch: pa.RecordBatch, images: ImageStore) -> Iterator[pa.RecordBatch]:
    """The batch cut where the files of its rows would be more than ``PIECE_BYTES`` in memory."""
    start = num_bytes = 0
    for at, size in enumerate(_sizes(batch, images)):
        if size > MOST_BYTES:
            raise RunError(
                f"row {batch.column('id')[at]}: its files have {size:,} bytes, more than a row of Parquet may hold"
            )
        if num_bytes + size > PIECE_BYTES and at > start:
            yield batch.slice(start, at - start)
            start, num_bytes = at, 0
        num_bytes += size
    yield batch.slice(start)


def _sizes(batch: pa.RecordBatch, images: ImageStore) -> list[int]:
    """Bytes of the files of each row."""
    sizes = [0] * batch.num_rows
    for name in FILES.keys() & set(batch.schema.names):
        store = _store(images, name)
        for at, shown in enumerate(batch.column(name).to_pylist()):
            sizes[at] += sum(_file(store, digest).stat().st_size for digest in shown or ())
    return sizes


def _with_pictures(batch: pa.RecordBatch, images: ImageStore, schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        column = batch.column(field.name)
        if field.name in FILES:
            store = _store(images, field.name)
            shown = [[_picture(store, name) for name in row or ()] for row in column.to_pylist()]
            column = pa.array(shown, field.type)
        arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _store(images: ImageStore, kind: str) -> ImageStore | MediaStore:
    """Where the files of a column lie: the videos or the audio of the same state folder, or the images."""
    if kind == "images":
        return images
    (media,) = (media for media in MEDIA if media == kind)
    return MediaStore(images.folder.parent.parent, media)


def _picture(store: ImageStore | MediaStore, name: str) -> dict[str, Any]:
    return {"bytes": _file(store, name).read_bytes(), "path": name}


def _file(store: ImageStore | MediaStore, name: str) -> Path:
    path = store.path(name)
    if not path.is_file():
        raise RunError(f"{path}: a file of the rows is gone")
    return path
