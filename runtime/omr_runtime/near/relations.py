"""Forms of rows to who repeats whom: all SQL of near duplicates, in memory, spilled to disk where it is much.

Rows whose forms are equal are one node; nodes are numbered by the first of their rows. An edge joins two nodes that are
alike in all columns (or on average), and of each component of that graph the first row stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from omr_runtime.near.clusters import Clusters, Ints, clusters
from omr_runtime.near.measure import EXACT, Bands, Forms, Measure
from omr_runtime.work import for_duckdb
from omrlang.types import Near

BLOCK = 100_000


class Repeats:
    """The table ``repeated`` of rows that others stand for: (file, spot, id, stays, via, alike)."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder = folder
        self.db = duckdb.connect(":memory:", config={"temp_directory": str(folder / ".spill")})
        self.files = for_duckdb(files)

    def of(self, file: int) -> dict[int, dict[str, Any]]:
        """Of one file the rows that go, by their place in it: their ids, who ``stays``, ``via`` whom, how ``alike``."""
        found = self.db.execute(
            "select spot, id, stays, via, alike from repeated where file = ? order by spot", [file]
        ).fetchall()
        names = ("row", "stays", "via", "alike")
        return {spot: dict(zip(names, rest, strict=True)) for spot, *rest in found}

    def table(self) -> pa.Table:
        """All of it."""
        return self.db.sql("select * from repeated order by file, spot").to_arrow_table()

    # ---- columns

    def number_forms(self, column: int) -> Forms:
        """Number the different forms of a column in their own order, and bring them together on disk."""
        self.db.execute(
            f"""create table form_{column} as select form, row_number() over (order by form) - 1 as number
                from (select distinct form_{column} as form from read_parquet(?) where form_{column} is not null)""",
            [self.files],
        )
        file = self.folder / f"forms-{column}.bin"
        ends: list[int] = [0]
        with open(file, "wb") as out:
            for batch in self._blocks(f"select form from form_{column} order by number"):
                for form in batch.column(0).to_pylist():
                    ends.append(ends[-1] + out.write(form))
        return Forms(file, np.array(ends[1:], np.int64))

    def _blocks(self, query: str) -> Iterator[pa.RecordBatch]:
        """A cursor of its own, so that others may write while it is read."""
        cursor = self.db.cursor()
        try:
            yield from cursor.sql(query).to_arrow_reader(BLOCK)
        finally:
            cursor.close()

    def meet(self, bands: Bands) -> Iterator[tuple[Ints, Ints]]:
        """Forms that share a key of a band, each pair once, in order."""
        self.db.execute("create or replace table band (band bigint, number bigint, key ubigint)")
        for band, number, key in bands:
            self._insert("band", band=band, number=number, key=key)
        query = """select distinct a.number as one, b.number as other from band a join band b
                   on a.band = b.band and a.key = b.key and a.number < b.number order by one, other"""
        for batch in self._blocks(query):
            one, other = (batch.column(place).to_numpy() for place in (0, 1))
            yield one, other

    def compare(self, column: int, measure: Measure, forms: Forms, at: float) -> None:
        """Both directions of the pairs that are alike, and each form with itself."""
        self.db.execute(
            f"create table alike_{column} as select number as one, number as other, 1.0::double as alike from form_{column}"
        )
        for pairs in measure.pairs(forms, at, self.meet):
            self._insert(f"alike_{column}", one=pairs.one, other=pairs.other, alike=pairs.like)
            self._insert(f"alike_{column}", one=pairs.other, other=pairs.one, alike=pairs.like)

    def _insert(self, name: str, **columns: np.ndarray[Any, Any]) -> None:
        block = pa.table({key: pa.array(values) for key, values in columns.items()})
        self.db.register("block", block)
        self.db.execute(f"insert into {name} select * from block")
        self.db.unregister("block")

    # ---- rows

    def number_nodes(self, num_columns: int) -> int:
        """Rows of equal forms are one node; how many there are. A row that lacks a form is like none."""
        numbers = ", ".join(f"form_{i}.number as number_{i}" for i in range(num_columns))
        joins = " ".join(f"join form_{i} on form_{i}.form = r.form_{i}" for i in range(num_columns))
        keys = ", ".join(f"number_{i}" for i in range(num_columns))
        self.db.execute(
            f"create table placed as select r.file, r.spot, r.id, r.rank, {numbers} from read_parquet(?) r {joins}",
            [self.files],
        )
        self.db.execute(
            f"""create table node as select {keys}, row_number() over (order by min(rank), {keys}) - 1 as node
                from placed group by {keys}"""
        )
        self.db.execute(
            f"""create table member as select node, file, spot, id,
                  row_number() over (partition by node order by rank, id, file, spot) as place
                from placed join node using ({keys})"""
        )
        return self._number("select count(*) from node")

    def edges(self, near: Near) -> tuple[Ints, Ints, np.ndarray[Any, Any]]:
        """Pairs of nodes that are alike, from the column on that leaves fewest to look at."""
        first, *rest = sorted(range(len(near.columns)), key=self._num_meetings)
        ends = "".join(f", a.number_{i} as one_{i}, b.number_{i} as other_{i}" for i in rest)
        self.db.execute(
            f"""create table met as select a.node as one, b.node as other, s.alike{ends}
                from node a join alike_{first} s on s.one = a.number_{first}
                join node b on b.number_{first} = s.other and a.node < b.node"""
        )
        joins = " ".join(
            f"join alike_{i} on alike_{i}.one = met.one_{i} and alike_{i}.other = met.other_{i}"
            for i in rest
        )
        alike = ["met.alike", *(f"alike_{i}.alike" for i in rest)]
        score = (
            f"least({', '.join(alike)})"
            if near.across == "each"
            else f"({' + '.join(alike)}) / {len(alike)}"
        )
        found = self.db.sql(
            f"""select * from (select met.one, met.other, round({score}, {EXACT}) as alike from met {joins})
                where alike >= ?""",
            params=[round(near.at, EXACT)],
        ).to_arrow_table()
        one, other, like = (column.to_numpy() for column in found.columns)
        return one, other, like

    def _num_meetings(self, column: int) -> int:
        """Pairs of nodes that one column alone lets through."""
        return self._number(
            f"""with size as (select number_{column} as number, count(*) as num from node group by 1)
                select coalesce(sum(a.num * b.num), 0) from alike_{column} s
                join size a on a.number = s.one join size b on b.number = s.other"""
        )

    def _number(self, query: str) -> int:
        found = self.db.execute(query).fetchone()
        assert found is not None, "a count gives a row"
        return int(found[0])

    def settle(self, found: Clusters) -> None:
        """From nodes to rows: the first row of a node stands for it, the first node of a cluster stays."""
        self.db.execute(
            "create table cluster (node bigint, stays bigint, via bigint, alike double)"
        )
        nodes = np.arange(len(found.stays))
        self._insert("cluster", node=nodes, stays=found.stays, via=found.via, alike=found.like)
        self.db.execute(
            """create table repeated as
               select member.file, member.spot, member.id, stays.id as stays, via.id as via, cluster.alike
               from member join cluster using (node)
               join member stays on stays.node = cluster.stays and stays.place = 1
               join member via on via.node = cluster.via and via.place = 1
               where member.place > 1 or cluster.stays <> cluster.node"""
        )


@contextmanager
def repeats(
    near: Near, measures: Sequence[Measure], files: Sequence[Path], folder: Path
) -> Iterator[Repeats]:
    """Who repeats whom among the rows of files of forms; closed at the end."""
    found = Repeats(folder, files)
    try:
        for number, measure in enumerate(measures):
            forms = found.number_forms(number)
            found.compare(number, measure, forms, near.least)
        num_nodes = found.number_nodes(len(measures))
        found.settle(clusters(num_nodes, *found.edges(near)))
        yield found
    finally:
        found.db.close()
