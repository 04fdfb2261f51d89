"""A million rows through source, where, exact dedup and their verdicts, beside `datasets` doing the same row work.

    python benchmarks/rows.py [ROWS]

Both read the same JSON lines, give each row an id and a hash of its content, drop rows by two conditions, drop exact
repeats, keep for each dropped row why it was dropped, order the rest by a seed and write Parquet. `datasets` uses as many
processes as the machine has cores. What only omr does besides: the lineage in DuckDB, synced files, a run that can be killed.
Prints seconds, seconds of processor time and the peak memory of the largest process.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """omr 1

seed = 1

source raw from jsonl("rows.jsonl") {
  columns { question = problem, answer = solution, extra.level = level }
  where = len(answer) <= 50 and number(extra.level) > 0
}

mix distinct from [raw : all] { unique = exact }
"""

WITH_DATASETS = """
import os
from hashlib import sha256

import datasets

CORES = os.cpu_count()
datasets.disable_progress_bars()


def row(raw, position):
    content = sha256((raw["problem"] + "\\0" + raw["solution"]).encode()).hexdigest()
    name = sha256(f"rows.jsonl:{position}".encode()).hexdigest()
    level = raw["level"]
    reason = None if len(raw["solution"]) <= 50 and level > 0 else "where"
    return {"id": name, "question": raw["problem"], "answer": raw["solution"], "extra": str(level), "content": content, "reason": reason}


data = datasets.load_dataset("json", data_files="rows.jsonl", split="train", cache_dir="cache")
data = data.map(row, with_indices=True, remove_columns=data.column_names, num_proc=CORES)
seen = set()


def first(content, reason):
    if reason is not None:
        return {"reason": reason}
    if content in seen:
        return {"reason": "repeats"}
    seen.add(content)
    return {"reason": None}


data = data.map(first, input_columns=["content", "reason"])
data.filter(lambda reason: reason is not None, input_columns="reason", num_proc=CORES).to_parquet("dropped.parquet")
kept = data.filter(lambda reason: reason is None, input_columns="reason", num_proc=CORES).shuffle(seed=1)
kept.to_parquet("kept.parquet")
print(len(kept))
"""


def write_rows(path: Path, num_rows: int) -> None:
    """Sums as questions, each of three quarters of them twice or more."""
    draw = random.Random(1)
    with open(path, "w") as file:
        for _ in range(num_rows):
            k = draw.randrange(3 * num_rows // 4)
            asked = (
                f"What is {k} plus {k * 7 % 1000}? Think about it carefully and give the number."
            )
            row = {"problem": asked, "solution": str(k + k * 7 % 1000), "level": k % 5}
            file.write(json.dumps(row) + "\n")


def timed(command: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Wall seconds, processor seconds, GiB of the largest process so far, what it printed last."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, busy, after.ru_maxrss / 2**20, done.stdout


def main(num_rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", num_rows)
        (folder / "rows.omr").write_text(RECIPE)
        (folder / "other.py").write_text(WITH_DATASETS)
        ours = timed([sys.executable, "-m", "omrlang", "run", "rows.omr"], folder)
        theirs = timed([sys.executable, "other.py"], folder)
        kept = int(theirs[3].split()[-1])
        assert f"{kept:,}" in ours[3], "both keep the same number of rows"
        print(f"{num_rows:,} rows, {kept:,} kept, {os.cpu_count()} cores")
        for label, (wall, busy, peak, _) in (("omr run", ours), ("datasets", theirs)):
            print(f"{label:10} {wall:7.1f} s   {busy:7.1f} s of processor   {peak:.2f} GiB")
        print(
            f"omr is {theirs[0] / ours[0]:.1f} times as fast ({theirs[1] / ours[1]:.1f} in processor time)"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
