"""Sampling from servers that fail for a third of all requests, by processes that are killed: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from unruly_server import FAULTS, Unruly

from omr_runtime.engines.openai import OpenAIEngine, Retry
from omr_runtime.engines.protocol import Completion, Decoding, Request
from omr_runtime.work import InputRows, Shards, Work, read_rows, read_table
from omrlang.plan import PlanStage
from omrlang.schema import Sample
from omrlang.types import HfModel, Model, OpenAI, Prompt

PROMPT = Prompt(name="plain")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def server() -> Iterator[Unruly]:
    made = Unruly(share=0.3)
    yield made
    made.stop()


def asked(number: int, n: int) -> Request:
    row = {"id": f"q{number}", "question": f"question {number}"}
    seeds = tuple(range(1000 * number, 1000 * number + n))
    return Request(row["id"], row, PROMPT, tuple(range(n)), seeds, Decoding(0.7, 50))


def test_all_samples_arrive_once_from_a_server_that_fails_a_third_of_the_time(
    server: Unruly,
) -> None:
    retry = Retry(tries=12, first_wait_s=0.002)
    engine = OpenAIEngine([server.url], "m", concurrency=16, retry=retry, timeout_s=0.4)
    found: list[Completion] = []
    started = time.monotonic()
    engine.generate([asked(i, n=3) for i in range(250)], found.append)
    assert time.monotonic() - started < 60, "nothing hangs"
    assert all(server.seen[fault] for fault in FAULTS), server.seen
    assert [c.error for c in found if c.error] == []
    places = [(c.key, c.index) for c in found]
    assert len(places) == len(set(places)) == 750
    for c in found:
        number = int(c.key[1:])
        assert c.text == f"question {number} {1000 * number + c.index}"


def order(folder: Path, url: str, count: int) -> Work:
    """The work order of a sample stage of ``count`` questions."""
    settings = OpenAI(url=url, concurrency=16, timeout=0.4)
    teacher = Model(name="teacher", source=HfModel(id="some/model"), engine=settings)
    spec = Sample(
        name="traces",
        seed=7,
        rows="q",
        model=teacher,
        n=3,
        prompt=PROMPT,
        max_tokens=64,
        temperature=1.0,
    )
    rows = [
        {"id": f"row{i}", "content": f"content{i}", "source": "s", "question": f"question {i}"}
        for i in range(count)
    ]
    Shards(folder / "input").write(0, {"row": rows})
    stage = PlanStage(
        address="sample.traces",
        name="traces",
        spec=spec,
        fingerprint="out",
        parents=("q",),
        action="new",
    )
    return Work(
        stage=stage,
        seed=spec.seed,
        base=str(folder),
        state=str(folder),
        out=str(folder / "store" / "out"),
        progress=str(folder / "out.progress"),
        inputs=(InputRows(name="q", fingerprint="in", folder=str(folder / "input")),),
    )


NURSERY = """
import json, os, random, signal, sys, time
from omr_runtime import sample_store
from omr_runtime.engines import openai
from omr_runtime.stages import sample
from omr_runtime.work import Work

sample_store.FLUSH_S = 0.03
openai.Retry.__init__.__defaults__ = (12, 0.002)
work = Work.read(sys.argv[1])
add = sample_store.SampleStore.add

def born(notice):
    def first(store, completion):
        sample_store.SampleStore.add = add
        add(store, completion)
        os.write(notice, b"!")
    sample_store.SampleStore.add = first
    sample.run(work)

for life_s in json.loads(sys.argv[2]):
    hear, notice = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            born(notice)
        finally:
            os._exit(3)
    os.read(hear, 1)
    time.sleep(life_s)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it was at work when it was killed"
    print(json.dumps("killed"), flush=True)
sample.run(work)
"""
"""Workers in processes of their own, forked where all is imported already, killed so long after their first sample."""


def kept(work: Work) -> Counter[tuple[str, int]]:
    """How often each sample lies in the ledger."""
    parts = Path(work.state, "store", "samples").glob("*/part-*.parquet")
    return Counter((line["key"], line["index"]) for part in parts for line in read_table(part))


def run_worker(work: Work, lives_s: Sequence[float] = ()) -> Counter[int]:
    """Workers that are killed after so many seconds, then one that comes to its end; how many samples there were at each kill."""
    path = Path(work.state) / "work.json"
    path.write_text(work.model_dump_json())
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}"}
    command = [sys.executable, "-c", NURSERY, str(path), json.dumps(list(lives_s))]
    there: Counter[int] = Counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            there[kept(work).total()] += 1
    assert process.returncode == 0
    return there


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_fifty_times_against_an_unruly_server(tmp_path: Path) -> None:
    """At random moments, many of them in a flush: no sample is lost, none is drawn twice once it is kept."""
    unruly, calm, rng = Unruly(share=0.3, pause_s=0.03), Unruly(share=0.0), random.Random(11)
    work = order(tmp_path / "a", unruly.url, count=1_200)
    there = run_worker(work, [rng.uniform(0.0, 0.12) for _ in range(50)])
    assert there.total() == 50
    assert sorted(there) == list(there), "what was kept stays"
    assert len(there) > 20, "most lives left something"
    whole = order(tmp_path / "b", calm.url, count=1_200)
    run_worker(whole)
    assert set(kept(work).values()) == {1}
    assert rows(work) == rows(whole)
    for server in (unruly, calm):
        server.stop()


def rows(work: Work) -> list[dict[str, object]]:
    """What the stage wrote, without the ids, which tell one server's address from another's."""
    found = read_rows([InputRows(name="x", fingerprint="x", folder=work.out)])
    return [{name: value for name, value in row.items() if name != "id"} for row in found]


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------

RECIPE = """omr 1

seed = 5

prompt plain {{
  system = "Be brief."
}}

model teacher = hf("some/model") {{
  engine = openai("{url}", concurrency = 4)
}}

source words from jsonl("words.jsonl")

sample traces from words with teacher {{
  n           = 2
  prompt      = plain
  temperature = 1.0
  max_tokens  = 64
}}
"""


def test_ctrl_c_finishes_what_is_in_flight_and_the_next_run_goes_on(tmp_path: Path) -> None:
    server = Unruly(share=0.0, pause_s=0.4)
    lines = [json.dumps({"question": f"question {i}", "answer": "1"}) for i in range(60)]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))
    recipe = tmp_path / "words.omr"
    recipe.write_text(RECIPE.format(url=server.url))
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}"}
    command = [sys.executable, "-m", "omrlang", "run", str(recipe), "--state", str(tmp_path / "s")]
    first = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while server.seen["answered"] < 10:
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 5, said
    assert "finishing what is in flight" in said
    asked = server.seen["answered"]
    assert asked < 60
    parts = list((tmp_path / "s" / "store" / "samples").glob("*/part-*.parquet"))
    there = [(line["key"], line["index"]) for part in parts for line in read_table(part)]
    assert len(there) == len(set(there)) == 2 * asked, "every request that was sent is kept"
    server.pause_s = 0.0
    assert subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0
    assert server.seen["answered"] == 60, "nothing was asked twice"
    server.stop()
