"""Ten million edges: a hop of `why` beside a scan of the edge table, and `funnel` beside counting the rows.

    python benchmarks/lineage.py [EDGES]

The lineage is written as a run writes it, shard after shard into `lineage.duckdb`, by the code that a run uses: four stages
of samples, each row with its parent. A hop asks for the parents of a row, and for its children, each of a row that was not
asked before. The scan reads all columns of the edge table. What a user would have instead is a table as rows come, without
an order: its look-up is printed too. Times are medians; the figure to hold is that a hop takes at most a tenth of a scan.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median

import pyarrow as pa

from omr_runtime import lineage
from omr_runtime.lineage import Reader
from omr_runtime.work import Shards, table_of

STAGES = 4
SHARD_ROWS = 65_536
SAMPLES = 4
ASKED = 41


def name(kind: str, number: int) -> str:
    return sha256(f"{kind}{number}".encode()).hexdigest()[:32]


def write(folder: Path, count: int) -> Path:
    """A lineage of so many edges."""
    path, each = folder / "lineage.duckdb", count // STAGES
    for stage in range(STAGES):
        shards = Shards(folder / f"stage{stage}")
        for number, start in enumerate(range(stage * each, (stage + 1) * each, SHARD_ROWS)):
            shards.write(number, tables(range(start, min(start + SHARD_ROWS, (stage + 1) * each))))
        with lineage.write(path, "run") as writer:
            writer.start_stage(f"stage{stage}", f"stage{stage}", "sample", "{}", (), None)
            for shard in shards.read():
                writer.add_shard(f"stage{stage}", shard)
        with lineage.write(path, "run") as writer:
            writer.sort_edges(f"stage{stage}")
            writer.end_stage(f"stage{stage}", "done", 1.0, {})
    return path


def tables(numbers: range) -> dict[str, pa.Table]:
    ids = pa.array([name("row", i) for i in numbers])
    parents = pa.array([name("question", i // SAMPLES) for i in numbers])
    return {
        "row": table_of("row", id=ids, parent=parents, source="s"),
        "edge": table_of("edge", child=ids, parent=parents, role="sampled_from"),
    }


def timed(ask: Callable[[str], object], names: Sequence[str]) -> float:
    """Milliseconds, the median."""
    taken = []
    for one in names:
        start = time.perf_counter()
        ask(one)
        taken.append(1e3 * (time.perf_counter() - start))
    return median(taken)


SCAN = "select count(stage), max(child), max(parent), count(role), sum(shard) from edge"
BY_COUNTING = 'select source, count(*) from "row" where stage = ? group by 1'


def report(reader: Reader, count: int) -> None:
    step = count // ASKED
    rows = [name("row", i) for i in range(7, count, step)]
    questions = [name("question", i // SAMPLES) for i in range(7, count, step)]
    scan = timed(lambda _: reader.ask(SCAN), [""] * 7)
    lines = {
        "scan of all columns": scan,
        "hop up, to the parents": timed(reader.edges_up, rows),
        "hop down, to the children": timed(reader.edges_down, questions),
        "look-up in a table without order": unordered(reader, rows),
        "funnel, from the counts": timed(reader.funnel, ["stage1"] * 7),
        "funnel, counting the rows": timed(lambda s: reader.ask(BY_COUNTING, s), ["stage1"] * 7),
    }
    for label, taken in lines.items():
        print(f"{label:34} {taken:9.2f} ms   {taken / scan:7.1%} of a scan")


def unordered(reader: Reader, rows: Sequence[str]) -> float:
    """The same edges in the order in which samples come."""
    reader.db.execute("create temp table plain as select * from edge order by sha256(child)")
    sql = "select distinct stage, parent, role from plain where child = ?"
    return timed(lambda row: reader.ask(sql, row), rows[:11])


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = write(Path(folder), count)
        seconds, size = time.perf_counter() - start, path.stat().st_size / 2**20
        print(f"{count:,} edges in {STAGES} stages: written in {seconds:.0f} s, {size:,.0f} MiB")
        with lineage.read(path) as reader:
            report(reader, count)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
