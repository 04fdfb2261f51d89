"""Row sets to one row set: who is picked, who is a duplicate, in what order. All SQL of mixes, in memory.

The result depends on seeds and contents alone, never on the order of files or on threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import duckdb
import pyarrow as pa

from omr_runtime.errors import RunError
from omr_runtime.work import ROW, InputRows, Shards, for_duckdb
from omrlang.schema import Mix
from omrlang.types import All, Count, MixAmount, MixPart, Share, Times, UpTo

ORDER = "sha256(concat(?, '|order|', {column}))"
"""The order of ``identity.order_key(seed, "order", …)``."""

DUPLICATE = "duplicate"
UNPICKED = "amount"


@dataclass(frozen=True, slots=True)
class Picked:
    """What a part's amount asks for: ``n`` rows or all (None), ``exactly`` or at most, each ``times``."""

    n: int | None
    exactly: bool
    times: int = 1


def amounts(mix: Mix) -> list[Picked]:
    """The parts' amounts as counts."""
    pairs = zip(mix.parts, mix.share_rows(), strict=True)
    return [_picked(part.amount, share) for part, share in pairs]


def _picked(amount: MixAmount, share: int) -> Picked:
    match amount:
        case All():
            return Picked(None, False)
        case Count(n=n):
            return Picked(n, True)
        case UpTo(n=n):
            return Picked(n, False)
        case Times(k=k):
            return Picked(None, False, k)
        case Share():
            return Picked(share, True)
        case _:
            assert_never(amount)


class Relations:
    """The tables of one mix: ``kept`` rows, ``dropped`` with reasons, ``duplicate`` edges."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.db = duckdb.connect(":memory:", config={"temp_directory": str(folder / ".spill")})
        # `part` counts parts from 0; `copy` is the occurrence of an id in the result, 0 for the first.
        self.db.execute(
            """create table kept (part integer, copy integer, file text, spot bigint, id text, content text, response text,
                                  thinking text)"""
        )
        self.db.execute(
            "create table dropped (part integer, id text, source text, reason text, first text, via text, alike double)"
        )
        self.db.execute(
            "create table near (file text, spot bigint, id text, stays text, via text, alike double)"
        )

    def close(self) -> None:
        self.db.close()

    def add(
        self, part: int, spec: MixPart, rows: InputRows, picked: Picked, seed: int, unique: bool
    ) -> None:
        """Pick a part's rows among those that no earlier part gave, or that repeat none (``know``)."""
        self._load(rows)
        self._mark(seed, unique)
        self._check(spec, picked)
        n = -1 if picked.n is None else picked.n
        self.db.execute(
            """insert into kept select ?, 0, file, spot, id, content, response, thinking from marked
               where first is null and (? < 0 or place <= ?)""",
            [part, n, n],
        )
        self.db.execute(
            f"""insert into dropped select ?, id, source,
                  case when first is not null then '{DUPLICATE}' else '{UNPICKED}' end, first, via, alike from marked
                where first is not null or (? >= 0 and place > ?)""",
            [part, n, n],
        )
        for again in range(1, picked.times):
            self.db.execute(
                "insert into kept select part, ?, file, spot, id, content, response, thinking from kept where part = ? and copy = 0",
                [again, part],
            )

    def know(self, repeats: pa.Table) -> None:
        """Take over which rows are near duplicates of which."""
        self.db.register("found", repeats)
        self.db.execute("insert into near select * from found")
        self.db.unregister("found")

    def _load(self, rows: InputRows) -> None:
        files = for_duckdb(row_files([rows]))
        self.db.execute(
            "create or replace table part (file text, spot bigint, id text, content text, source text, response text, thinking text)"
        )
        if files:
            self.db.execute(
                """insert into part select filename, file_row_number, id, content, source, response, thinking
                   from read_parquet(?, filename = true, file_row_number = true)""",
                [files],
            )

    def _mark(self, seed: int, unique: bool) -> None:
        """``first``: the row that this one repeats, in an earlier part or before it in the order of this one.
        ``place``: among those that repeat none, from 1, in the order of the seed."""
        self.db.execute(
            "create or replace table ordered as select *, "
            + ORDER.format(column="id")
            + " as key from part",
            [str(seed)],
        )
        if unique:
            self.db.execute(
                """create or replace table repeated as
                   with earlier as (select content, response, thinking, arg_min(id, (part, spot)) as id from kept group by all)
                   select ordered.*, coalesce(earlier.id, case when number > 1 then lead end) as first,
                          null::text as via, null::double as alike from (
                     select *, row_number() over same as number, first_value(id) over same as lead from ordered
                     window same as (partition by content, response, thinking order by key, spot)) ordered
                   left join earlier on earlier.content = ordered.content
                     and earlier.response is not distinct from ordered.response
                     and earlier.thinking is not distinct from ordered.thinking"""
            )
        else:
            self.db.execute(
                """create or replace table repeated as select ordered.*, near.stays as first, near.via, near.alike
                   from ordered left join near on near.file = ordered.file and near.spot = ordered.spot"""
            )
        self.db.execute(
            """create or replace table marked as select *,
               case when first is null then row_number() over (partition by first is null order by key, file, spot) end as place
               from repeated"""
        )

    def _check(self, spec: MixPart, picked: Picked) -> None:
        found = self.db.execute(
            "select count(*), count(*) filter (first is null) from marked"
        ).fetchone()
        assert found is not None, "a count gives a row"
        there, distinct = found
        if picked.exactly and picked.n is not None and picked.n > distinct:
            less = f", {distinct:,} of them no duplicates" if distinct < there else ""
            raise RunError(
                f"{spec.rows}: {picked.n:,} rows are asked for, there are {there:,}{less}; up_to({picked.n}) takes what there is"
            )

    # ---- the result

    def num_rows(self) -> tuple[int, int]:
        """Kept and dropped."""
        query = "select (select count(*) from kept), (select count(*) from dropped)"
        ((kept, dropped),) = self.db.execute(query).fetchall()
        return int(kept), int(dropped)

    def by_part(self, spec: Mix) -> dict[str, int]:
        """Kept rows by the part that they came with."""
        found = dict(self.db.execute("select part, count(*) from kept group by part").fetchall())
        return {part.rows: int(found.get(number, 0)) for number, part in enumerate(spec.parts)}

    def arrange(self, seed: int, shuffle: bool) -> None:
        """Number the kept rows in the order of the result; ``again`` is the occurrence of an id in it, from 0."""
        order = "key, part, copy, file, spot" if shuffle else "part, copy, file, spot"
        self.db.execute(
            f"""create or replace table arranged as
                select *, row_number() over (order by {order}) - 1 as number,
                       row_number() over (partition by id order by part, copy, file, spot) - 1 as again
                from (select *, {ORDER.format(column="concat(id, case when copy > 0 then concat('#', copy) else '' end)")} as key
                      from kept)""",
            [str(seed)],
        )
        self.db.execute(
            "create or replace table gone as select *, row_number() over (order by part, reason, id, first) - 1 as number from dropped"
        )

    def gather(self) -> None:
        """Bring all columns of the kept rows together in the order of the result, once for all slices."""
        found = self.db.execute("select distinct file from kept order by 1").fetchall()
        files = for_duckdb(file for (file,) in found)
        names = ", ".join(f'rows."{name}"' for name in ROW.names)
        if not files:
            self.db.execute("create or replace table result (number bigint, again bigint)")
            return
        self.db.execute(
            f"""create or replace table result as select {names}, arranged.number as number, arranged.again as again
                from read_parquet(?, filename = true, file_row_number = true) rows join arranged
                  on arranged.file = rows.filename and arranged.spot = rows.file_row_number
                order by arranged.number""",
            [files],
        )

    def rows(self, start: int, stop: int) -> tuple[pa.Table, pa.ChunkedArray]:
        """Rows ``start`` to ``stop`` of the result with all columns, and which occurrence of its id each is."""
        names = ", ".join(f'"{name}"' for name in ROW.names)
        if self._is_empty():
            return ROW.empty_table(), pa.chunked_array([], pa.int64())
        found = self._table(f"select {names}, again from result", start, stop)
        return found.drop_columns("again").cast(ROW), found["again"]

    def _is_empty(self) -> bool:
        return self.num_rows()[0] == 0

    def dropped(self, start: int, stop: int) -> pa.Table:
        """Dropped rows ``start`` to ``stop``: (row, source, reason, first, via, alike), ``first`` the row that it repeats."""
        query = "select id as row, source, reason, first, via, alike from gone"
        return self._table(query, start, stop)

    def _table(self, query: str, start: int, stop: int) -> pa.Table:
        # `sql` and not `execute`: its result goes to Arrow without a copy.
        where = "where number >= ? and number < ? order by number"
        return self.db.sql(f"{query} {where}", params=[start, stop]).to_arrow_table()


def row_files(inputs: Sequence[InputRows]) -> list[Path]:
    """The Parquet files with the rows of artifacts, in order."""
    return [
        shard.files["row"]
        for entry in inputs
        for shard in Shards(entry.folder).read()
        if "row" in shard.files
    ]


@contextmanager
def mixed(
    spec: Mix, inputs: Sequence[InputRows], folder: Path, near: pa.Table | None = None
) -> Iterator[Relations]:
    """The relations of a mix, arranged; closed at the end. ``near`` are the near duplicates among all inputs."""
    by_name = {entry.name: entry for entry in inputs}
    relations = Relations(folder)
    try:
        if near is not None:
            relations.know(near)
        for number, (part, picked) in enumerate(zip(spec.parts, amounts(spec), strict=True)):
            relations.add(
                number, part, by_name[part.rows], picked, spec.seed, spec.unique == "exact"
            )
        relations.arrange(spec.seed, spec.shuffle)
        relations.gather()
        yield relations
    finally:
        relations.close()
