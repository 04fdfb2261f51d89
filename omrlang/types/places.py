"""Where raw rows are: one type for each constructor that stands after a source's ``from``."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.setting import Frozen, Setting


class HfData(Frozen):
    """A dataset on the Hugging Face hub."""

    kind: Literal["hf"] = "hf"
    id: Annotated[str, Setting("`OWNER/NAME` on the hub", cls="rows")]
    split: Annotated[str, Setting("which split", cls="rows")] = "train"
    config: Annotated[
        str | None, Setting("which configuration, where there are several", cls="rows")
    ] = None
    revision: Annotated[
        str | None, Setting("commit, tag or branch; none is pinned when a plan is made", cls="rows")
    ] = None


class Folder(Frozen):
    """A folder written by ``datasets.save_to_disk`` (``split`` picks one of a DatasetDict), a folder of Parquet files, or
    one of pictures, each a row: `path` below the folder, `folder` that it lies in, `name`, `images`, `width`, `height`."""

    kind: Literal["folder"] = "folder"
    path: Annotated[str, Setting("relative to the recipe", cls="rows")]
    split: Annotated[str | None, Setting("which split of a DatasetDict", cls="rows")] = None


class Parquet(Frozen):
    kind: Literal["parquet"] = "parquet"
    path: Annotated[str, Setting("file or folder, relative to the recipe", cls="rows")]


class Jsonl(Frozen):
    """One JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    path: Annotated[str, Setting("relative to the recipe", cls="rows")]


class Json(Frozen):
    """One JSON array of objects."""

    kind: Literal["json"] = "json"
    path: Annotated[str, Setting("relative to the recipe", cls="rows")]


class Csv(Frozen):
    kind: Literal["csv"] = "csv"
    path: Annotated[str, Setting("relative to the recipe", cls="rows")]


class Webdataset(Frozen):
    """Tar files in WebDataset's form. Members whose names agree up to the first dot are one row, their endings its
    columns: `jpg`, `png`, `txt`, `cls`, `json` (its parts as `json["caption"]`), and `__key__`, what the names share."""

    kind: Literal["webdataset"] = "webdataset"
    path: Annotated[
        str,
        Setting("a file, or several as `train-*.tar` or `train-{000..127}.tar`", cls="rows"),
    ]


class Synthetic(Frozen):
    """Rows that a program draws: ``shapes`` are pictures with a counting question, its answer and a solution."""

    kind: Literal["synthetic"] = "synthetic"
    name: Annotated[Literal["shapes"], Setting("which program draws", cls="rows")]
    n: Annotated[int, Setting("how many", cls="rows", unit="rows", ge=1)]
    seed: Annotated[int, Setting("of the drawing", cls="rows", ge=0)]


Place: TypeAlias = Annotated[
    HfData | Folder | Parquet | Jsonl | Json | Csv | Webdataset | Synthetic,
    Field(discriminator="kind"),
]
