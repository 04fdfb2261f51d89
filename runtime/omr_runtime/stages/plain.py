"""Blocks of plain rows to rows of the schema, a column at a time; what is not plain is left to be read row by row.

Plain is a source whose columns are texts that are only renamed: most text sets. The result is what the rows would
give one by one, to the last id (a law of the tests); it is only had many times as fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

import pyarrow as pa

from omr_runtime.blocks import Block
from omr_runtime.identity import content_hashes, row_ids
from omr_runtime.strict_json import encoder
from omr_runtime.work import ROW
from omrlang.schema import Source
from omrlang.types import Col

TEXTS = ("question", "answer", "variant", "response", "thinking", "final_answer")
LISTS = ("images", "videos", "audios", "options")
_PATIENCE = 3
"""After so many blocks in a row that are not plain the rest of the source is not tried."""

extra_as_json = encoder(sort_keys=True)
"""The columns ``extra.NAME`` of a row as the column ``extra`` keeps them."""


@dataclass(slots=True)
class Plain:
    """The raw column of each column of the schema, where a recipe does no more than name them."""

    texts: dict[str, str]
    extras: dict[str, str]
    takes_all: bool
    origin: str
    label: str
    misses: int = 0

    @staticmethod
    def of(spec: Source, origin: str) -> Plain | None:
        """None where the recipe computes a column, or looks for images or options."""
        label = spec.label or spec.name
        if not spec.columns:
            return Plain({name: name for name in TEXTS}, {}, True, origin, label)
        trees = {name: expression.tree for name, expression in spec.columns.items()}
        raw = {name: tree.name for name, tree in trees.items() if isinstance(tree, Col)}
        odd = any(name.startswith("extra.") for name in raw.values())
        if odd or raw.keys() != trees.keys() or raw.keys() & {*LISTS} or "question" not in raw:
            return None
        texts = {name: column for name, column in raw.items() if name in TEXTS}
        extras = {name: column for name, column in raw.items() if name not in TEXTS}
        return Plain(texts, extras, False, origin, label)

    def rows(self, block: Block) -> tuple[pa.Table, list[int]] | None:
        """Rows with their places in the block, all but those without a question. None for a block that is not plain."""
        if self.misses >= _PATIENCE or not block.positions:
            return None
        columns = self._columns(block)
        self.misses = 0 if columns is not None else self.misses + 1
        if columns is None:
            return None
        asked = [at for at, text in enumerate(columns["question"]) if text and text.strip()]
        if len(asked) < block.num_rows:
            columns = {name: [values[at] for at in asked] for name, values in columns.items()}
        return self._table(block, columns, asked), asked

    def _columns(self, block: Block) -> dict[str, list[Any]] | None:
        """Each column of the schema and each ``extra.NAME``, a value for each row."""
        others = (*LISTS, *self.extras.values()) if self.takes_all else (*self.extras.values(),)
        if self.takes_all and block.may_have("extra."):
            return None
        found = block.columns([*self.texts.values()], others)
        if found is None or any(name in found.column_names for name in LISTS if self.takes_all):
            return None
        columns: dict[str, list[Any]] = {}
        for name, raw in (*self.texts.items(), *self.extras.items()):
            there = raw in found.column_names
            column = found.column(raw) if there else pa.chunked_array([pa.nulls(block.num_rows)])
            values = _values(column, as_text=name in TEXTS)
            if values is None:
                return None
            columns[name] = values
        return columns

    def _table(self, block: Block, columns: dict[str, list[Any]], asked: Sequence[int]) -> pa.Table:
        made: dict[str, Any] = {name: columns[name] for name in self.texts}
        answers = made.get("answer", [None] * len(asked))
        made["id"] = row_ids(self.origin, block.file, (block.positions[at] for at in asked))
        made["content"] = content_hashes(made["question"], answers)
        made["source"] = pa.repeat(self.label, len(asked))
        for name in ("images", "videos", "audios"):
            made[name] = [[]] * len(asked)
        if self.extras:
            parts = [_named_in_json(name, columns[name]) for name in sorted(self.extras)]
            made["extra"] = [f"{{{', '.join(row)}}}" for row in zip(*parts, strict=True)]
        arrays = [pa.array(made[f.name], f.type) if f.name in made else pa.nulls(len(asked), f.type) for f in ROW]  # fmt: skip
        return pa.Table.from_arrays(arrays, schema=ROW)


def _named_in_json(name: str, values: Iterable[str | int | bool | None]) -> list[str]:
    """The one column ``extra.NAME`` of each row as ``extra_as_json`` writes it."""
    start = f"{_json(name.removeprefix('extra.'))}: "
    return [start + _json(value) for value in values]


def _json(value: str | int | bool | None) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    return "null" if value is None else str(value).lower()


def _values(column: pa.ChunkedArray, *, as_text: bool) -> list[Any] | None:
    """The values of a column of texts, whole numbers or truth values; None for any other."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return list(column.to_pylist())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return list((column.cast(pa.string()) if as_text else column).to_pylist())
    return None
