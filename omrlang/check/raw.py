"""The first records of a local file to the raw columns that a source's expressions may name."""

from __future__ import annotations

import csv
import json
from itertools import islice
from pathlib import Path
from typing import Any

from omrlang.check.context import Columns, Context
from omrlang.scope import Draft
from omrlang.types import Csv, Folder, Json, Jsonl, Synthetic, Webdataset

HEAD_BYTES = 1 << 20
HEAD_SAMPLES = 20
HEAD_FILES = 1_000
SHAPES = ("question", "images", "answer", "thinking")


def raw_columns(ctx: Context, draft: Draft, place: Any) -> Columns:
    """Known where the place is local and its head can be read; what is wrong with a file is the run's to say."""
    what = f"the data of `{draft.name}`"
    names: list[str] | None = None
    match place:
        case Synthetic():
            names = list(SHAPES)
        case Jsonl() | Json() | Csv():
            path = ctx.root.home / place.path
            names = _head(path, place)
        case Webdataset():
            names = _members(ctx.root.home / place.path)
        case Folder():
            names = _pictures(ctx.root.home / place.path)
        case _:
            pass
    return Columns(None if names is None else dict.fromkeys(names, "any"), what, raw=True)


def _members(path: Path) -> list[str] | None:
    """The endings of the first samples; a sample may lack one."""
    from omrlang.patterns import named_files
    from omrlang.tars import KEY, BrokenTar, tar_samples

    found = {KEY: ""}
    try:
        for file in named_files(path)[:1]:
            for sample in islice(tar_samples(file, contents=False), HEAD_SAMPLES):
                found |= sample.names
    except (OSError, BrokenTar):
        return None
    return list(found) if len(found) > 1 else None


def _pictures(folder: Path) -> list[str] | None:
    """Known of a small folder of pictures; among many files there may be one that makes it a folder of another kind."""
    from omrlang.patterns import PICTURE_COLUMNS, PICTURES, files_below

    try:
        files = list(islice(files_below(folder), HEAD_FILES))
    except OSError:
        return None
    kinds = {file.suffix.lower() for file in files}
    known = len(files) < HEAD_FILES and not kinds & {".parquet", ".json"}
    return list(PICTURE_COLUMNS) if known and kinds & PICTURES else None


def _head(path: Path, place: Jsonl | Json | Csv) -> list[str] | None:
    try:
        with open(path, "rb") as file:
            text = file.read(HEAD_BYTES).decode("utf-8-sig", errors="ignore")
    except (OSError, ValueError):
        return None
    if isinstance(place, Csv):
        return next(csv.reader([text.partition("\n")[0].rstrip("\r")]), None)
    start = text.find("{")
    if start < 0:
        return None
    try:
        record, _ = json.JSONDecoder().raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError):
        return None
    return list(record) if isinstance(record, dict) else None
