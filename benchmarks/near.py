"""Near duplicates of real questions, beside datasketch in a loop, and how many of the pairs that there are get found.

    pip install datasketch==2.0.0
    python benchmarks/near.py QUESTIONS.jsonl [ROWS] [THRESHOLD]

QUESTIONS has a column `question`. Rows are its questions and copies of them in which words are left out, doubled or replaced, so
that pairs lie on both sides of the threshold. The pairs that there are come from an index of all runs of words, which
misses none. datasketch's own LSH says who may be alike, as it is mostly used; its pairs are then compared exactly, as
ours are. Both are one process; seconds are whole: from texts to who goes.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from datasketch import MinHash, MinHashLSH

from omr_runtime.near.encoding import encode
from omr_runtime.near.relations import repeats
from omr_runtime.near.words import Words, word_runs
from omr_runtime.verify.interpret import no_tokens
from omr_runtime.work import Progress, Shards
from omrlang.expressions import row_expression
from omrlang.types import Col, Minhash, Near

WORDS = 3
QUESTION = row_expression(Col(name="question"), "question", "text", [])
SHARD = 1_000


def texts(file: Path, num_rows: int) -> list[str]:
    """Questions and spoilt copies of them, shuffled."""
    chance = random.Random(1)
    real = [json.loads(line)["question"] for line in file.read_text().splitlines()]
    vocabulary = sorted({word for text in real for word in text.split()})
    made = real[:num_rows]
    while len(made) < num_rows:
        made.append(spoilt(chance.choice(real), vocabulary, chance))
    chance.shuffle(made)
    return made


def spoilt(text: str, vocabulary: list[str], chance: random.Random) -> str:
    """One to six words left out, doubled or replaced."""
    words = text.split()
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(words))
        words[place : place + 1] = chance.choice(
            ([], [words[place]] * 2, [chance.choice(vocabulary)])
        ) or ["so"]
    return " ".join(words)


def ours(rows: list[str], at: float, found: set[tuple[int, int]]) -> int:
    """How many rows go; ``found`` is filled with the pairs that are alike."""
    near = Near(columns=(QUESTION,), at=at, text=Minhash(words=WORDS))
    with tempfile.TemporaryDirectory() as name:
        folder, shards = Path(name), Shards(Path(name) / "rows")
        for start in range(0, len(rows), SHARD):
            part = [
                {"id": str(start + place), "content": text, "question": text}
                for place, text in enumerate(rows[start : start + SHARD])
            ]
            shards.write(start // SHARD, {"row": part})
        files = [shard.files["row"] for shard in shards.read()]
        measures = [Words(Minhash(words=WORDS))]
        progress = Progress(folder / "progress")
        forms = encode(near, measures, files, folder / "forms", 1, no_tokens, progress)
        with repeats(near, measures, forms, folder / "forms") as result:
            gone = sum(len(result.of(place)) for place in range(len(files)))
            pairs = result.db.execute(
                """select a.id, b.id from member a join placed p on a.id = p.id join alike_0 s on s.one = p.number_0
                   join placed q on q.number_0 = s.other join member b on b.id = q.id where a.id::int < b.id::int"""
            ).fetchall()
    found.update((int(one), int(other)) for one, other in pairs)
    return gone


def theirs(rows: list[str], at: float, found: set[tuple[int, int]]) -> int:
    """The same by datasketch: insert what was not seen, ask for each."""
    index, runs = MinHashLSH(threshold=at, num_perm=128), []
    tied = [*range(len(rows))]

    def root(node: int) -> int:
        while tied[node] != node:
            node = tied[node]
        return node

    for place, text in enumerate(rows):
        mine = set(word_runs(text, WORDS))
        runs.append(mine)
        sketch = MinHash(num_perm=128)
        sketch.update_batch([run.encode() for run in mine])
        for other in index.query(sketch):
            if len(mine & runs[other]) / len(mine | runs[other]) >= at:
                found.add((other, place))
                tied[root(place)] = root(other)
        index.insert(place, sketch)
    return sum(root(place) != place for place in range(len(rows)))


def all_pairs(rows: list[str], at: float) -> Iterator[tuple[int, int]]:
    """Every pair that is alike: two texts that share no run are not."""
    runs = [set(word_runs(text, WORDS)) for text in rows]
    holders: dict[str, list[int]] = {}
    for place, mine in enumerate(runs):
        common = Counter(other for run in mine for other in holders.get(run, ()))
        for other, number in common.items():
            if number / (len(mine) + len(runs[other]) - number) >= at:
                yield other, place
        for run in mine:
            holders.setdefault(run, []).append(place)


def timed(work: Callable[[], int]) -> tuple[int, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def main(file: Path, num_rows: int, at: float) -> None:
    rows = texts(file, num_rows)
    print(f"{len(rows):,} rows, near duplicates from {at} on")
    there = set(all_pairs(rows, at))
    seconds = {}
    for name, work in (("omrlang", ours), ("datasketch", theirs)):
        found: set[tuple[int, int]] = set()
        gone, seconds[name] = timed(lambda work=work, found=found: work(rows, at, found))
        recall = len(found & there) / max(1, len(there))
        print(
            f"{name:12} {seconds[name]:7.1f} s   {gone:,} rows go   {len(found):,} of {len(there):,} pairs, {recall:.2%}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"ratio {seconds['datasketch'] / seconds['omrlang']:.1f}; peak of the process {peak:.2f} GiB"
    )


if __name__ == "__main__":
    file, num_rows, at = (*sys.argv[1:], *("30000", "0.7")[len(sys.argv) - 2 :])
    main(Path(file), int(num_rows), float(at))
