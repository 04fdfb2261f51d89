"""A place to its raw rows: one reader for each format, each row with where it stands.

Alone knows file formats. A row that cannot be read is a ``Bad`` with its reason; a file that cannot be read at all
is a RunError that names it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never

from omr_runtime.errors import RunError
from omrlang.patterns import at_home, files_below, is_picture, named_files
from omrlang.types import Csv, Folder, HfData, Json, Jsonl, Parquet, Place, Synthetic, Webdataset

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from omrlang.tars import TarSample

_LIMIT_FIELD = 1 << 27
_PEEK, _PEEK_FAR = 100, 100_000
FILES_AT_ONCE = 25
"""Rows with files in them, at a time: a part of every number of rows that is counted in."""


@dataclass(frozen=True, slots=True)
class Good:
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """``reason`` is why this row cannot be read, without its place."""

    reason: str


_NOTHING = Good({})


@dataclass(frozen=True, slots=True)
class Raw:
    """A raw row. ``file`` is its name below the place, ``position`` its line (``unit`` line) or number, from 1.

    ``folder`` is what relative image paths in it are relative to; None where rows may name no files.
    """

    file: str
    position: int
    unit: Literal["line", "row"]
    row: Good | Bad
    shown: str
    folder: Path | None

    @property
    def where(self) -> str:
        """``data/train.jsonl:12`` for lines, ``data/train.json, row 12`` for rows."""
        return (
            f"{self.shown}:{self.position}"
            if self.unit == "line"
            else f"{self.shown}, row {self.position}"
        )


Content: TypeAlias = Iterator[tuple[int, Good | Bad]]


def read_place(place: Place, base: Path) -> Iterator[Raw]:
    """All raw rows in order. ``base`` is what the recipe's paths are relative to."""
    match place:
        case Jsonl(path=path):
            yield from _files(path, base, "line", _jsonl)
        case Json(path=path):
            yield from _files(path, base, "row", _json)
        case Csv(path=path):
            yield from _files(path, base, "line", _csv)
        case Parquet(path=path):
            yield from _files(path, base, "row", _parquet)
        case Webdataset(path=path):
            yield from _files(path, base, "row", _webdataset, may_name_files=False)
        case Folder():
            yield from _folder(place, base)
        case HfData():
            yield from _hub(place)
        case Synthetic():
            yield from _synthetic(place)
        case _:
            assert_never(place)


def read_outline(place: Place, base: Path) -> Iterator[Raw]:
    """The same without what rows hold, where that need not be read to count them."""
    match place:
        case Jsonl(path=path):
            yield from _files(path, base, "line", _jsonl_lines)
        case Parquet(path=path):
            yield from _files(path, base, "row", _parquet_rows)
        case _:
            yield from read_place(place, base)


def known_columns(place: Place, base: Path, wanted: Set[str]) -> list[str]:
    """The columns of the first rows, in their order; those of many rows where each row names its own and some ``wanted`` are
    in none of the first."""
    if isinstance(place, Parquet):
        return _columns_of_parquet(find_files(place.path, base))
    found: dict[str, None] = {}
    most = _PEEK_FAR if isinstance(place, Jsonl | Json | Webdataset) else _PEEK
    for number, raw in zip(range(most), read_place(place, base), strict=False):
        if number >= _PEEK and wanted <= found.keys():
            break
        if isinstance(raw.row, Good):
            found.update(dict.fromkeys(raw.row.values))
    return list(found)


def _columns_of_parquet(files: Sequence[Path]) -> list[str]:
    found: dict[str, None] = {}
    num_rows = 0
    for file in files:
        with _opened_parquet(file) as table:
            found.update(dict.fromkeys(table.schema_arrow.names))
            num_rows += table.metadata.num_rows
        if num_rows >= _PEEK:
            break
    return list(found)


# ---- files -----------------------------------------------------------------------------------------------------


def find_files(path: str, base: Path) -> list[Path]:
    """The file, or the files of a pattern in order of names. RunError when there is none, or one is missing."""
    full = base / at_home(path)
    found = named_files(full)
    if not found:
        raise RunError(f"{path}: no file matches (looked in {full.parent.resolve()})")
    for file in found:
        if file.is_dir():
            raise RunError(f"{path}: is a folder, a file is needed; folder(…) reads folders")
        if not file.is_file():
            raise RunError(f"{path}: no such file (looked for {file.resolve()})")
    return found


def _files(
    path: str,
    base: Path,
    unit: Literal["line", "row"],
    reader: Callable[[Path], Content],
    *,
    may_name_files: bool = True,
) -> Iterator[Raw]:
    for file in find_files(path, base):
        folder = file.parent if may_name_files else None
        try:
            for position, row in reader(file):
                yield Raw(file.name, position, unit, row, str(file), folder)
        except OSError as error:
            raise RunError(f"{file}: cannot be read ({error.strerror or error})") from error


def _jsonl(file: Path) -> Content:
    with open(file, "rb") as data:
        for position, line in numbered_lines(data):
            yield position, parse_line(line)


def _jsonl_lines(file: Path) -> Content:
    with open(file, "rb") as data:
        for position, _ in numbered_lines(data):
            yield position, _NOTHING


def numbered_lines(data: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank with their numbers from 1, less a mark of the byte order."""
    for position, line in enumerate(data, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if position == 1 else line
        if text.strip():
            yield position, text


def parse_line(text: bytes) -> Good | Bad:
    try:
        return _object(json.loads(text))
    except UnicodeDecodeError as error:
        return Bad(f"not UTF-8 at byte {error.start + 1}")
    except RecursionError:
        return Bad("nested too deep")
    except ValueError as error:
        return Bad(f"not JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}")


def _object(value: Any) -> Good | Bad:
    if isinstance(value, dict):
        return Good(value)
    return Bad(f"a JSON object is needed, not a {type(value).__name__}")


def _json(file: Path) -> Content:
    try:
        rows = json.loads(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except json.JSONDecodeError as error:
        raise RunError(
            f"{file}:{error.lineno}: not JSON: {error.msg} (column {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(rows, list):
        raise RunError(
            f"{file}: a JSON array of objects is needed, not a {type(rows).__name__}; jsonl(…) reads one object a line"
        )
    for position, row in enumerate(rows, start=1):
        yield position, _object(row)


def _csv(file: Path) -> Content:
    csv.field_size_limit(_LIMIT_FIELD)
    with open(file, newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text, strict=True)
        try:
            if reader.fieldnames is None:
                raise RunError(f"{file}: empty, a line with the names of the columns is needed")
            _check_names(file, reader.fieldnames)
            for row in reader:
                yield reader.line_num, _csv_row(row, len(reader.fieldnames))
        except csv.Error as error:
            raise RunError(f"{file}:{reader.line_num}: not CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise RunError(f"{file}: not UTF-8 after line {reader.line_num}") from error


def _check_names(file: Path, names: Sequence[str]) -> None:
    """One name for two columns would hide one of them; columns without a name nobody can mean."""
    again = next((name for at, name in enumerate(names) if name and name in names[:at]), None)
    if again is not None:
        raise RunError(f"{file}:1: two columns are called {again!r}")


def _csv_row(row: dict[str | Any, Any], num_columns: int) -> Good | Bad:
    if None in row:
        return Bad(f"{num_columns + len(row[None])} fields, the first line names {num_columns}")
    if None in row.values():
        found = sum(value is not None for value in row.values())
        return Bad(f"{found} fields, the first line names {num_columns}")
    return Good(row)


@contextmanager
def _opened_parquet(file: Path) -> Iterator[pq.ParquetFile]:
    """RunError where it cannot be opened."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise RunError(f"{file}: not readable as Parquet ({said})") from error
    with table:
        yield table


def _parquet(file: Path) -> Content:
    import pyarrow as pa

    position = 0
    try:
        with _opened_parquet(file) as table:
            for batch in table.iter_batches(batch_size=batch_rows(table.schema_arrow, 256)):
                for values in batch.to_pylist():
                    position += 1
                    yield position, Good(values)
    except (pa.ArrowException, OSError) as error:
        raise RunError(
            f"{file}: not readable as Parquet after row {position} ({str(error).splitlines()[0]})"
        ) from error


def _parquet_rows(file: Path) -> Content:
    with _opened_parquet(file) as table:
        num_rows = table.metadata.num_rows
    yield from ((position, _NOTHING) for position in range(1, num_rows + 1))


def batch_rows(schema: pa.Schema, most: int) -> int:
    """How many rows of a Parquet file are read at a time: few where it holds files, such as pictures of megabytes each. Its
    own sizes tell nothing of them: a picture that stands again counts once there."""
    import pyarrow as pa

    def holds_files(kind: pa.DataType) -> bool:
        if pa.types.is_nested(kind):
            return any(holds_files(kind.field(at).type) for at in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    return FILES_AT_ONCE if any(map(holds_files, schema.types)) else most


def _webdataset(file: Path) -> Content:
    from omrlang.tars import BrokenTar, tar_samples

    position = 0
    try:
        for sample in tar_samples(file):
            position += 1
            yield position, _sample(sample)
    except BrokenTar as error:
        raise RunError(f"{file}: not readable as a tar file: {error}") from error


def _sample(sample: TarSample) -> Good | Bad:
    """The members decoded by their endings; one that cannot be is named."""
    from omrlang.tars import KEY

    if sample.problem is not None:
        return Bad(sample.problem)
    values: dict[str, Any] = {KEY: sample.key}
    for column, data in sample.members.items():
        what, decode = _MEMBERS.get(column.rpartition(".")[2], _BYTES)
        try:
            values[column] = decode(data)
        except (ValueError, RecursionError):
            return Bad(f"a member is not {what}: {sample.names[column]}")
    return Good(values)


def _utf8(data: bytes) -> str:
    return data.decode("utf-8-sig")


_BYTES: tuple[str, Callable[[bytes], Any]] = ("bytes", bytes)
_MEMBERS: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    "txt": ("UTF-8", _utf8),
    "text": ("UTF-8", _utf8),
    "json": ("JSON in UTF-8", lambda data: json.loads(_utf8(data))),
    "cls": ("a whole number", int),
}
"""What members hold, by their ending, as the WebDataset library decodes them; any other, such as a picture, stays bytes."""


# ---- datasets --------------------------------------------------------------------------------------------------


def _folder(place: Folder, base: Path) -> Iterator[Raw]:
    folder = base / at_home(place.path)
    if not folder.is_dir():
        raise RunError(f"{place.path}: no such folder (looked for {folder.resolve()})")
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        yield from _saved(place, folder)
        return
    files = sorted(file for file in folder.rglob("*.parquet") if not _hidden(file, folder))
    if not files:
        yield from _pictures(place, folder)
    for file in files:
        name = file.relative_to(folder).as_posix()
        for position, row in _parquet(file):
            yield Raw(name, position, "row", row, str(file), folder)


def _pictures(place: Folder, folder: Path) -> Iterator[Raw]:
    """Each picture file is a row of its own, named by its path."""
    root, found = folder.resolve(), False
    for file in files_below(folder):
        if is_picture(file):
            found = True
            name = file.relative_to(folder).as_posix()
            yield Raw(name, 1, "row", _picture(file, name, root), str(file), folder)
    if not found:
        raise RunError(f"{place.path}: neither a saved dataset, nor Parquet files, nor pictures")


def _picture(file: Path, name: str, root: Path) -> Good | Bad:
    """Its size is read from its head. A link that leads out of the folder is not opened."""
    from PIL import Image, UnidentifiedImageError

    try:
        name.encode()
        if not Path(os.path.realpath(file)).is_relative_to(root):
            return Bad(f"image lies outside of the data's folder: {name}")
        with Image.open(file) as image:
            width, height = image.size
    except UnicodeEncodeError:
        return Bad("the name of a picture is not UTF-8")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError):
        return Bad(f"unreadable image: {name}")
    places = {"path": name, "folder": file.parent.name if "/" in name else None, "name": file.stem}
    return Good({**places, "images": [name], "width": width, "height": height})


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _saved(place: Folder, folder: Path) -> Iterator[Raw]:
    """What ``save_to_disk`` wrote: one split, or the one that ``split`` picks."""
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise RunError(f"{place.path}: not readable as a saved dataset ({error})") from error
    name = place.split or ""
    if isinstance(data, datasets.DatasetDict):
        name = place.split or (next(iter(data)) if len(data) == 1 else "")
        if name not in data:
            wanted = (
                f"no split {place.split!r}" if place.split else "several splits, `split` picks one"
            )
            raise RunError(f"{place.path}: {wanted}; it has {', '.join(map(str, data))}")
        data = data[name]
    for position, values in enumerate(_stored_rows(data), start=1):
        yield Raw(name or "data", position, "row", Good(values), str(folder), folder)


def _hub(place: HfData) -> Iterator[Raw]:
    import datasets

    try:
        data = datasets.load_dataset(
            place.id, name=place.config, split=place.split, revision=place.revision
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RunError(
            f"hf({place.id!r}): cannot be had ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
    for position, values in enumerate(_stored_rows(data), start=1):
        yield Raw(place.split, position, "row", Good(values), f"{place.id} ({place.split})", None)


def _stored_rows(data: Any) -> Iterator[dict[str, Any]]:
    """Rows as they are stored: an image stays ``{bytes, path}`` and is not decoded."""
    for table in data.with_format("arrow").iter(batch_size=256):
        yield from table.to_pylist()


def _synthetic(place: Synthetic) -> Iterator[Raw]:
    from omr_runtime.synthetic import shapes

    for position, values in enumerate(shapes.draw(place.n, place.seed), start=1):
        yield Raw(place.name, position, "row", Good(values), f"synthetic({place.name!r})", None)
