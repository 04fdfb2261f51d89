"""A place to rows of the one schema: columns mapped, images taken into the store, what does not fit said or dropped."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from omr_runtime.blocks import Block, read_blocks
from omr_runtime.errors import RunError, is_disk_full
from omr_runtime.identity import content_hash, digest, row_id
from omr_runtime.places import Bad, Raw, known_columns, read_outline
from omr_runtime.stages.plain import LISTS, TEXTS, Plain, extra_as_json
from omr_runtime.store import MEDIA, ImageStore, Media, MediaStore
from omr_runtime.verify.interpret import Count, ExpressionError, evaluate
from omr_runtime.verify.relations import all_true
from omr_runtime.verify.tokens import TokenCounter
from omr_runtime.work import TABLES, Progress, Shards, Work, finish, table_of
from omrlang.schema import Source
from omrlang.types import Col, ExprNode, RowExpr
from omrlang.walk import children

SLICE = 2_000
PLAIN_SLICE = 50_000
"""Raw rows of one shard, at least: fixed, so that a restarted worker makes the same shards."""

TAKE = "take"

COLUMNS = (*TEXTS, *LISTS)
UNNAMED = frozenset({"id", "extra"})
_LETTER = re.compile(r"\s*\(?([A-Za-z])\)?[.:]?\s*")


class BadRow(RunError):
    """A row that does not fit. ``str(error)`` is the reason without its place."""


Tables: TypeAlias = dict[str, pa.Table]


@dataclass(slots=True)
class Made:
    """What rows that were looked at one by one give."""

    tables: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {"row": [], "dropped": [], "verdict": [], "origin": []}
    )

    def drop(self, row: str, source: str, reason: str) -> None:
        self.tables["dropped"].append({"row": row, "source": source, "reason": reason})

    def as_tables(self) -> Tables:
        return {
            name: pa.Table.from_pylist(rows, TABLES[name]) for name, rows in self.tables.items()
        }


@dataclass(slots=True)
class Reader:
    """What a source stage needs for each row. ``origin`` names the data as read, without what only picks from it."""

    work: Work
    spec: Source
    images: ImageStore
    origin: str
    taken: frozenset[str] | None
    count: Count
    plain: Plain | None

    @property
    def label(self) -> str:
        return self.spec.label or self.spec.name


def run(work: Work) -> None:
    """Read the place slice by slice; slices that are there already are passed over."""
    spec = work.stage.spec
    assert isinstance(spec, Source), "a source stage carries a source"
    base = Path(work.base)
    _check_columns(spec, base)
    origin = _origin(work, spec)
    reader = Reader(
        work,
        spec,
        ImageStore(work.state),
        origin,
        _taken(spec, base),
        TokenCounter(work),
        Plain.of(spec, origin) if _is_sql(spec.where) else None,
    )
    shards, progress = Shards(work.out), Progress(work.progress)
    num_read = _read(reader, base, shards, progress)
    if num_read == 0:
        shards.write(0, {"row": []})
    if spec.rows is not None and spec.rows != num_read:
        raise RunError(
            f"declared are {spec.rows:,} rows, there are {num_read:,}: `rows` of the recipe must be what is read"
        )
    finish(work, {})


def _read(reader: Reader, base: Path, shards: Shards, progress: Progress) -> int:
    """Write the slices that are not there yet; how many rows there are."""
    finished, size = shards.numbers(), PLAIN_SLICE if reader.plain else SLICE
    number = num_read = end = 0
    made: list[Tables] = []
    for block in read_blocks(reader.spec.place, base, _wanted(reader.spec)):
        if number not in finished:
            made.append(_read_block(reader, block))
        num_read += block.num_rows
        progress.update(num_read, None, "rows")
        if num_read >= end + size:
            _write(shards, number, made)
            number, end, made = number + 1, num_read, []
    _write(shards, number, made)
    return num_read


def _write(shards: Shards, number: int, made: list[Tables]) -> None:
    if made:
        shards.write(number, {name: pa.concat_tables([t[name] for t in made]) for name in made[0]})


def _origin(work: Work, spec: Source) -> str:
    """What rows are made of, without ``take``, ``where`` and the like: so a row keeps its id when others come and go."""
    place = spec.place.model_dump(mode="json", exclude={"path", "n"})
    mapping = {
        name: expression.tree.model_dump(mode="json") for name, expression in spec.columns.items()
    }
    revision = work.stage.revision or (
        None if spec.place.kind == "synthetic" else work.stage.fingerprint
    )
    return digest(json.dumps([place, mapping], sort_keys=True), spec.label, revision)


def _check_columns(spec: Source, base: Path) -> None:
    """Before any row is kept: the raw columns that the recipe names exist."""
    if not spec.columns:
        return
    wanted = [
        (column, name) for column, e in spec.columns.items() for name in sorted(_columns_of(e.tree))
    ]
    found = known_columns(spec.place, base, {name for _, name in wanted})
    for column, name in wanted:
        if found and name not in found:
            raise RunError(
                f"columns.{column}: no column {name!r} in {_shown(spec)}; it has {', '.join(found)}"
            )


def _wanted(spec: Source) -> Callable[[str], bool]:
    """Whether rows are made of a raw column; also by what an expression looks for without its being named (`shuffled`)."""
    if not spec.columns:
        return lambda name: name in COLUMNS or name.startswith("extra.")
    names = UNNAMED.union(*(_columns_of(e.tree) for e in spec.columns.values()))
    return names.__contains__


def _columns_of(tree: ExprNode) -> set[str]:
    """The raw columns that an expression reads."""
    own = {tree.name} if isinstance(tree, Col) else set()
    return own.union(*(_columns_of(child) for child in children(tree)))


def _shown(spec: Source) -> str:
    return str(
        getattr(spec.place, "path", None) or getattr(spec.place, "id", None) or spec.place.kind
    )


def _key(file: str, position: int) -> str:
    return f"{file}:{position}"


def _taken(spec: Source, base: Path) -> frozenset[str] | None:
    """The rows that ``take`` picks: lowest sha256 of seed and place, so that subsets nest and columns do not matter."""
    if spec.take is None:
        return None
    keys = [_key(raw.file, raw.position) for raw in read_outline(spec.place, base)]
    if spec.take > len(keys):
        raise RunError(f"take = {spec.take:,}: there are only {len(keys):,} rows in {_shown(spec)}")
    order = sorted(keys, key=lambda key: sha256(f"{spec.seed}|take|{key}".encode()).digest())
    return frozenset(order[: spec.take])


def _read_block(reader: Reader, block: Block) -> Tables:
    """By column where that can be, else row by row."""
    found = reader.plain.rows(block) if reader.plain else None
    if found is None:
        return _one_by_one(reader, block.raws())
    rows, places = found
    tables = _judged(reader, block, rows, [block.positions[at] for at in places])
    if len(places) == block.num_rows:
        return tables
    rest = set(range(block.num_rows)).difference(places)
    bad = _one_by_one(reader, map(block.raw, sorted(rest)))
    return {name: pa.concat_tables([tables[name], bad[name]]) for name in tables}


def _one_by_one(reader: Reader, raws: Iterable[Raw]) -> Tables:
    made = Made()
    for raw in raws:
        ident = row_id(reader.origin, raw.file, raw.position)
        made.tables["origin"].append({"row": ident, "file": raw.shown, "position": raw.position})
        if reader.taken is not None and _key(raw.file, raw.position) not in reader.taken:
            made.drop(ident, reader.label, TAKE)
            continue
        try:
            row = _row(reader, raw, ident)
        except BadRow as error:
            if reader.spec.bad_rows == "stop":
                raise RunError(
                    f"{raw.where}: {error}; `bad_rows = drop` leaves such rows out"
                ) from error
            made.drop(ident, reader.label, f"bad row: {_without_place(str(error))}")
            continue
        _judge(reader, row, made)
    return made.as_tables()


def _without_place(reason: str) -> str:
    """One reason for all rows that fail alike: what stands in quotes or after a colon differs from row to row."""
    return reason.split(":")[0]


def _judge(reader: Reader, row: dict[str, Any], made: Made) -> None:
    """``where`` decides, with a verdict either way."""
    where = reader.spec.where
    if where is None:
        made.tables["row"].append(row)
        return
    try:
        ok = evaluate(where.tree, row, count=reader.count) is True
    except ExpressionError as error:
        raise RunError(f"where = {where.text}: {error}") from error
    reason = None if ok else where.text
    verdict = {"row": row["id"], "rule": where.text, "ok": ok, "reason": reason, "score": None}
    made.tables["verdict"].append(verdict)
    if ok:
        made.tables["row"].append(row)
    else:
        made.drop(row["id"], reader.label, where.text)


# ---- rows by column --------------------------------------------------------------------------------------------


def _is_sql(where: RowExpr | None) -> bool:
    return where is None or all(rule.sql is not None for rule in where.rules)


def _judged(reader: Reader, block: Block, rows: pa.Table, positions: Sequence[int]) -> Tables:
    """As ``_one_by_one`` does with each row: ``take`` picks, ``where`` decides, with a verdict either way."""
    origin = table_of("origin", row=rows["id"], file=block.shown, position=positions)
    dropped = []
    if reader.taken is not None:
        picked = [_key(block.file, position) in reader.taken for position in positions]
        taken = pa.array(picked, pa.bool_())
        dropped.append(_dropped(reader, rows.filter(pc.invert(taken)), TAKE))
        rows = rows.filter(taken)
    verdict = TABLES["verdict"].empty_table()
    if (where := reader.spec.where) is not None:
        ok = pa.array(all_true([rule.sql for rule in where.rules if rule.sql], rows), pa.bool_())
        reason = pc.if_else(ok, pa.scalar(None, pa.string()), where.text)
        verdict = table_of("verdict", row=rows["id"], rule=where.text, ok=ok, reason=reason)
        dropped.append(_dropped(reader, rows.filter(pc.invert(ok)), where.text))
        rows = rows.filter(ok)
    none = TABLES["dropped"].empty_table()
    return {
        "row": rows,
        "dropped": pa.concat_tables([none, *dropped]),
        "verdict": verdict,
        "origin": origin,
    }


def _dropped(reader: Reader, rows: pa.Table, reason: str) -> pa.Table:
    return table_of("dropped", row=rows["id"], source=reader.label, reason=reason)


# ---- one row ---------------------------------------------------------------------------------------------------


def _row(reader: Reader, raw: Raw, ident: str) -> dict[str, Any]:
    """The row in the schema. BadRow says what is wrong with it."""
    if isinstance(raw.row, Bad):
        raise BadRow(raw.row.reason)
    mapped = _map(reader, raw.row.values)
    row: dict[str, Any] = {name: _text(name, mapped.get(name)) for name in TEXTS}
    if not (row["question"] or "").strip():
        raise BadRow("no question")
    row["options"] = _options(mapped.get("options"))
    row["answer"] = _answer(row["answer"], row["options"])
    row["images"] = [_image(reader, raw, value) for value in _list(mapped.get("images"))]
    for kind in MEDIA:
        row[kind] = [_media(reader, raw, kind, value) for value in _list(mapped.get(kind))]
    row["extra"] = _extra(mapped)
    row["content"] = content_hash(
        row["question"], row["images"], row["options"], row["answer"], row["videos"], row["audios"]
    )
    return row | {"id": ident, "source": reader.label}


def _map(reader: Reader, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the schema's columns; without a mapping the columns that have the schema's names."""
    columns = reader.spec.columns
    if not columns:
        return {
            name: values[name] for name in values if name in COLUMNS or name.startswith("extra.")
        }
    try:
        return {
            name: evaluate(expression.tree, values, count=reader.count)
            for name, expression in columns.items()
        }
    except ExpressionError as error:
        raise BadRow(f"a column cannot be made: {error}") from error
    except UnicodeEncodeError as error:
        raise BadRow("a column cannot be made: half a character") from error
    except RecursionError as error:
        raise BadRow("a column cannot be made: nested too deep") from error


def _text(name: str, value: Any) -> str | None:
    """A value as text: whole numbers without a decimal point."""
    match value:
        case None:
            return None
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case float() if math.isfinite(value) and value.is_integer() and abs(value) < 1e15:
            text = str(int(value))
        case int() | float():
            text = str(value)
        case _:
            raise BadRow(f"`{name}` is no text: {type(value).__name__}")
    return _checked(text, name)


def _checked(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"`{name}` holds half a character") from error
    return text


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return (
        [item for item in value if item is not None] if isinstance(value, list | tuple) else [value]
    )


def _options(value: Any) -> list[str] | None:
    items = [_text("options", item) or "" for item in _list(value)]
    return items or None


def _answer(answer: str | None, options: list[str] | None) -> str | None:
    """With options the answer is the text of one: a letter stands for the option at its place."""
    if answer is None or not options:
        return answer
    texts = {option.strip().casefold(): option for option in options}
    if (same := texts.get(answer.strip().casefold())) is not None:
        return same
    letter = _LETTER.fullmatch(answer)
    at = ord(letter[1].upper()) - ord("A") if letter else len(options)
    if at >= len(options):
        raise BadRow(f"the answer is none of the options: {answer!r} in {options}")
    return options[at]


def _extra(mapped: Mapping[str, Any]) -> str | None:
    """Columns named ``extra.NAME`` as a JSON object."""
    found = {
        name.removeprefix("extra."): value
        for name, value in mapped.items()
        if name.startswith("extra.")
    }
    try:
        text = extra_as_json(found) if found else None
        return None if text is None else _checked(text, "extra")
    except (ValueError, RecursionError) as error:
        raise BadRow(f"`extra` cannot be kept as JSON: {error}") from error


def _image(reader: Reader, raw: Raw, value: Any) -> str:
    """The digest of an image given as bytes, as a path, or as ``{bytes, path}`` as datasets stores it."""
    match value:
        case bytes():
            return _put(reader, value, "")
        case {"bytes": bytes(data), **_rest}:
            return _put(reader, data, "")
        case str(path):
            return _put(reader, _read_image(raw, path), f": {path}")
        case {"path": str(path), **_rest}:
            return _put(reader, _read_image(raw, path), f": {path}")
        case _:
            raise BadRow(f"an image is given as {type(value).__name__}, not as a path or bytes")


def _put(reader: Reader, data: bytes, shown: str) -> str:
    try:
        return reader.images.put(data)
    except RunError as error:
        raise BadRow(f"unreadable image{shown}: {error}") from error


def _media(reader: Reader, raw: Raw, kind: Media, value: Any) -> str:
    """The digest of a video or an audio file, given as an image may be; its bytes are looked at by nobody."""
    what, store = kind.removesuffix("s"), MediaStore(reader.work.state, kind)
    try:
        match value:
            case bytes() | {"bytes": bytes()}:
                return store.put(io.BytesIO(value if isinstance(value, bytes) else value["bytes"]))
            case str() | {"path": str()}:
                path = value if isinstance(value, str) else value["path"]
                with open(_file_below(raw, path, what), "rb") as file:
                    return store.put(file)
            case _:
                given = type(value).__name__
                raise BadRow(f"a file of `{kind}` is given as {given}, not as a path or bytes")
    except BadRow:
        raise
    except RunError as error:
        raise BadRow(f"empty {what}: {error}") from error
    except OSError as error:
        if is_disk_full(error):
            raise
        raise BadRow(f"missing {what}: {value if isinstance(value, str) else kind}") from error


def _read_image(raw: Raw, path: str) -> bytes:
    try:
        return _file_below(raw, path, "image").read_bytes()
    except OSError as error:
        raise BadRow(f"missing image: {path}") from error


def _file_below(raw: Raw, path: str, what: str) -> Path:
    """A file below the folder of the data. Rows are not trusted: they may name nothing outside of it."""
    if raw.folder is None or "://" in path:
        raise BadRow(f"{what} is not a file beside the data: {path}")
    root = raw.folder.resolve()
    try:
        file = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # the last of links in a circle
        raise BadRow(f"missing {what}: {path}") from error
    if Path(path).is_absolute() or not file.is_relative_to(root):
        raise BadRow(f"{what} lies outside of the data's folder: {path}")
    return file
