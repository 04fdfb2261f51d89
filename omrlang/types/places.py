"""Where raw rows are: one type for each constructor that stands after a source's ``from``."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from omrlang.types.setting import Frozen, Setting


class HfData(Frozen):
    """A dataset on the Hugging Face hub."""

    kind: Literal["hf"] = "hf"
    id: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None


class Folder(Frozen):
    """A folder written by ``datasets.save_to_disk`` (``split`` picks one of a DatasetDict), or a folder of Parquet files."""

    kind: Literal["folder"] = "folder"
    path: str
    split: str | None = None


class Parquet(Frozen):
    kind: Literal["parquet"] = "parquet"
    path: str


class Jsonl(Frozen):
    """One JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    path: str


class Json(Frozen):
    """One JSON array of objects."""

    kind: Literal["json"] = "json"
    path: str


class Csv(Frozen):
    kind: Literal["csv"] = "csv"
    path: str


class Synthetic(Frozen):
    """Rows that a program draws: ``shapes`` are pictures with a counting question, its answer and a solution."""

    kind: Literal["synthetic"] = "synthetic"
    name: Literal["shapes"]
    n: Annotated[int, Setting("how many", cls="rows", unit="rows", ge=1)]
    seed: int


Place: TypeAlias = Annotated[
    HfData | Folder | Parquet | Jsonl | Json | Csv | Synthetic, Field(discriminator="kind")
]
