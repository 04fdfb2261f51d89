"""The ledger and the sample stage: what was sampled is never asked again, whoever asks, whenever a worker was killed.

Engines that die or fail on demand stand in for the scripted one where a test is about failures; the rest is real.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from omr_runtime import engines, ledger, sample_store, spool
from omr_runtime.chat import parse_response
from omr_runtime.engines.protocol import Completion, Done, EngineDied, Request, failed
from omr_runtime.engines.scripted import ScriptedEngine
from omr_runtime.errors import RunError
from omr_runtime.stages import sample
from omr_runtime.store import ImageStore
from omr_runtime.synthetic.shapes import draw
from omr_runtime.work import InputRows, Shards, Work, read_rows, read_table
from omrlang.plan import PlanStage
from omrlang.schema import Sample
from omrlang.types import Fresh, Model, Prompt, Scripted, TrainedModel, Transformers

PROMPT = Prompt(name="short")
TEACHER = Model(name="teacher", source=Scripted(name="shapes", right=0.7))
TINY = Model(
    name="tiny",
    source=Fresh(
        family="qwen2_5_vl", layers=1, hidden=32, heads=2, vision_layers=1, vision_hidden=32
    ),
    precision="fp32",
    vision=True,
)


def puzzles(state: Path, count: int) -> list[dict[str, Any]]:
    """Input rows as a source leaves them."""
    images = ImageStore(state)
    return [
        {
            **{name: row[name] for name in ("question", "answer", "thinking")},
            "id": f"row{i}", "content": f"content{i}", "source": "puzzles", "images": [images.put(d) for d in row["images"]],
        }
        for i, row in enumerate(draw(count, 3))
    ]  # fmt: skip


def order(state: Path, rows: list[dict[str, Any]], out: str = "out", **settings: Any) -> Work:
    """The work order of a sample stage over the rows."""
    given = {"name": "traces", "seed": 7, "rows": "q", "model": TEACHER, "n": 4, "prompt": PROMPT,
             "max_tokens": 64, "temperature": 1.0} | settings  # fmt: skip
    spec = Sample.model_validate(given)
    source = state / f"input-{out}"
    Shards(source).write(0, {"row": rows})
    stage = PlanStage(
        address="sample.traces",
        name="traces",
        spec=spec,
        fingerprint=out,
        parents=("q",),
        action="new",
    )
    return Work(
        stage=stage,
        seed=spec.seed,
        base=str(state),
        state=str(state),
        out=str(state / "store" / out),
        progress=str(state / f"{out}.progress"),
        inputs=(InputRows(name="q", fingerprint="in", folder=str(source)),),
        fingerprints={"cold_start": "fp1"},
    )


def result(work: Work) -> list[dict[str, Any]]:
    return list(read_rows([InputRows(name="x", fingerprint="x", folder=work.out)]))


def table(work: Work, name: str) -> list[dict[str, Any]]:
    return [line for shard in Shards(work.out).read() for line in read_table(shard.files[name])]


class Spy:
    """The scripted engine, counting what it is asked; ``behave`` may do something else instead."""

    name = "scripted"
    version = "1"

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.requests: list[Request] = []
        self.behave: Callable[[Sequence[Request], Done], None] | None = None
        self.engine = ScriptedEngine(Scripted(name="shapes", right=0.7))

    def generate(self, requests: Iterable[Request], done: Done) -> None:
        self.requests = list(requests)
        self.asked += [(r.row["id"], index) for r in self.requests for index in r.indices]
        (self.behave or self.engine.generate)(self.requests, done)

    def close(self) -> None:
        pass


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    made = Spy()
    monkeypatch.setattr(engines, "open_engine", lambda *args, **settings: made)
    return made


# ---- rows ------------------------------------------------------------------------------------------------------


def test_rows_come_in_the_order_of_the_input_and_carry_what_was_sampled(tmp_path: Path) -> None:
    rows = puzzles(tmp_path, 20)
    work = order(tmp_path, rows)
    sample.run(work)
    found = result(work)
    assert [(r["parent"], r["sample_index"]) for r in found] == [
        (f"row{i}", j) for i in range(20) for j in range(4)
    ]
    first = found[0]
    assert (first["question"], first["images"], first["source"]) == (
        rows[0]["question"],
        rows[0]["images"],
        "puzzles",
    )
    assert first["final_answer"] == parse_response(first["response"], PROMPT).final_answer
    assert first["prompt"].startswith("short:")
    assert (first["finish"], first["engine"]) == ("stop", "scripted 1")
    assert len({r["id"] for r in found}) == 80
    assert table(work, "edge")[0] == {
        "child": first["id"],
        "parent": "row0",
        "role": "sampled_from",
    }
    summary = json.loads((Path(work.out) / "done.json").read_text())
    assert (summary["num_in"], summary["num_failed"]) == (80, 0)
    assert summary["mean_response_tokens"] > 10


def test_the_scripted_teacher_is_right_as_often_as_it_is_told_and_wrong_in_several_ways(
    tmp_path: Path,
) -> None:
    work = order(tmp_path, puzzles(tmp_path, 300))
    sample.run(work)
    found = result(work)
    parsed = [parse_response(r["response"], PROMPT) for r in found]
    right = [
        p.format_ok and p.final_answer == r["answer"] for p, r in zip(parsed, found, strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(0.7, abs=0.04)
    wrong = [(p, r) for p, r, ok in zip(parsed, found, right, strict=True) if not ok]
    assert any(p.format_ok for p, _ in wrong), "a wrong count in the right format"
    assert any(p.final_answer == r["answer"] for p, r in wrong), (
        "the right count in a broken format"
    )
    assert any(p.final_answer is None for p, _ in wrong), "no answer"


def test_samples_do_not_depend_on_state_order_or_what_was_there(tmp_path: Path) -> None:
    rows = puzzles(tmp_path / "a", 12)
    one = order(tmp_path / "a", rows)
    sample.run(one)
    rows = puzzles(tmp_path / "b", 12)
    sample.run(order(tmp_path / "b", rows[6:], "half", n=2))
    two = order(tmp_path / "b", rows)
    sample.run(two)
    assert result(two) == result(one)


def test_another_seed_or_temperature_is_another_sample(tmp_path: Path) -> None:
    rows = puzzles(tmp_path, 30)
    works = [
        order(tmp_path, rows, "a"),
        order(tmp_path, rows, "b", seed=8),
        order(tmp_path, rows, "c", temperature=0.5),
    ]
    for work in works:
        sample.run(work)
    ids = [{r["id"] for r in result(work)} for work in works]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]
    assert [r["response"] for r in result(works[0])] != [r["response"] for r in result(works[1])]


# ---- what is not asked again -----------------------------------------------------------------------------------


def test_raising_n_asks_for_the_new_samples_only(tmp_path: Path, spy: Spy) -> None:
    rows = puzzles(tmp_path, 5)
    first = order(tmp_path, rows, "four")
    sample.run(first)
    spy.asked.clear()
    second = order(tmp_path, rows, "eight", n=8)
    sample.run(second)
    assert sorted(spy.asked) == [(f"row{i}", j) for i in range(5) for j in range(4, 8)]
    old = {r["id"]: r["response"] for r in result(first)}
    assert {r["id"]: r["response"] for r in result(second) if r["sample_index"] < 4} == old


def test_lowering_n_and_asking_again_ask_for_nothing(tmp_path: Path, spy: Spy) -> None:
    rows = puzzles(tmp_path, 5)
    sample.run(order(tmp_path, rows, "a"))
    spy.asked.clear()
    sample.run(order(tmp_path, rows, "b", n=2))
    sample.run(order(tmp_path, rows, "c"))
    assert spy.asked == []


def test_rows_that_look_the_same_to_the_model_share_their_samples(tmp_path: Path, spy: Spy) -> None:
    rows = puzzles(tmp_path, 1)
    twins = [rows[0] | {"id": "one"}, rows[0] | {"id": "two"}]
    work = order(tmp_path, twins)
    sample.run(work)
    assert len(spy.asked) == 4
    found = result(work)
    assert len({r["id"] for r in found}) == 8
    assert [r["response"] for r in found[:4]] == [r["response"] for r in found[4:]]


def test_a_changed_prompt_asks_again_and_a_changed_format_does_not(
    tmp_path: Path, spy: Spy
) -> None:
    rows = puzzles(tmp_path, 2)
    sample.run(order(tmp_path, rows, "a"))
    spy.asked.clear()
    sample.run(order(tmp_path, rows, "b", prompt=Prompt(name="repaired", repair=True)))
    assert spy.asked == []
    sample.run(order(tmp_path, rows, "c", prompt=Prompt(name="other", system="Be brief.")))
    assert len(spy.asked) == 8


def test_requests_hold_all_samples_of_a_question_longest_first(tmp_path: Path, spy: Spy) -> None:
    rows = [
        row | {"question": row["question"] + " " * i} for i, row in enumerate(puzzles(tmp_path, 6))
    ]

    def none_succeeds(requests: Sequence[Request], done: Done) -> None:
        for request in requests:
            for completion in failed(request, "no"):
                done(completion)

    spy.behave = none_succeeds
    with pytest.raises(RunError):
        sample.run(order(tmp_path, rows))
    lengths = [len(r.row["question"]) for r in spy.requests]
    assert lengths == sorted(lengths, reverse=True)
    assert all(r.indices == (0, 1, 2, 3) for r in spy.requests)
    assert all(r.seeds == tuple(r.seeds[0] + i for i in range(4)) for r in spy.requests)
    assert all(path.exists() for r in spy.requests for path in r.images)


def test_models_of_other_training_runs_are_other_teachers(tmp_path: Path) -> None:
    rows = puzzles(tmp_path, 1)
    work = order(tmp_path, rows, model=TrainedModel(stage="cold_start"))
    later = work.model_copy(update={"fingerprints": {"cold_start": "fp2"}})
    decoding = sample.decoding(work.stage.spec)  # type: ignore[arg-type]
    groups = [
        ledger.sampling_group(w, TrainedModel(stage="cold_start"), decoding) for w in (work, later)
    ]
    assert groups[0] != groups[1]


# ---- what goes wrong -------------------------------------------------------------------------------------------


def test_failed_samples_are_dropped_with_their_reason_and_asked_again_by_the_next_run(
    tmp_path: Path, spy: Spy
) -> None:
    rows = puzzles(tmp_path, 6)

    def some_fail(requests: Sequence[Request], done: Done) -> None:
        for request in requests:
            if request.row["id"] in ("row1", "row4"):
                for completion in failed(request, "prompt too long"):
                    done(completion)
            else:
                spy.engine.generate([request], done)

    spy.behave = some_fail
    work = order(tmp_path, rows, "a")
    sample.run(work)
    dropped = table(work, "dropped")
    assert len(result(work)) == 16
    assert {d["reason"] for d in dropped} == {"not sampled: prompt too long"}
    assert json.loads((Path(work.out) / "done.json").read_text())["num_in"] == 16 + len(dropped)
    spy.behave = None
    spy.asked.clear()
    again = order(tmp_path, rows, "b")
    sample.run(again)
    assert sorted(spy.asked) == [(f"row{i}", j) for i in (1, 4) for j in range(4)]
    assert len(result(again)) == 24


def test_a_row_of_another_set_is_a_failed_sample(tmp_path: Path) -> None:
    rows = [
        *puzzles(tmp_path, 2),
        {"id": "odd", "content": "odd", "source": "s", "question": "Why?", "images": []},
    ]
    work = order(tmp_path, rows, n=1)
    sample.run(work)
    assert len(result(work)) == 2
    (dropped,) = table(work, "dropped")
    assert (
        dropped["reason"]
        == "not sampled: the scripted teacher knows drawn puzzles with their solution only"
    )


def test_a_stage_in_which_everything_fails_says_why(tmp_path: Path) -> None:
    odd = {"id": "odd", "content": "odd", "source": "s", "question": "Why?", "images": []}
    with pytest.raises(
        RunError, match=r"sample.traces: no sample could be had; 4 of 4: the scripted teacher"
    ):
        sample.run(order(tmp_path, [odd]))


def test_no_rows_is_no_failure(tmp_path: Path) -> None:
    work = order(tmp_path, [])
    sample.run(work)
    assert result(work) == []


def test_an_engine_that_dies_leaves_what_was_finished(tmp_path: Path, spy: Spy) -> None:
    rows = puzzles(tmp_path, 10)

    def dies(requests: Sequence[Request], done: Done) -> None:
        spy.engine.generate(requests[:3], done)
        raise EngineDied("vLLM stopped: out of memory")

    spy.behave = dies
    work = order(tmp_path, rows)
    with pytest.raises(
        EngineDied, match=r"^vLLM stopped: out of memory; 12 of 40 samples are kept"
    ) as caught:
        sample.run(work)
    assert caught.value.exit_code == 5
    assert Shards(work.out).read() == []
    spy.behave = None
    spy.asked.clear()
    sample.run(work)
    assert len(spy.asked) == 28
    whole = order(tmp_path / "whole", puzzles(tmp_path / "whole", 10))
    spy.asked.clear()
    sample.run(whole)
    assert result(work) == result(whole)


def test_a_damaged_shard_of_the_ledger_is_put_aside_and_asked_again(
    tmp_path: Path, spy: Spy
) -> None:
    rows = puzzles(tmp_path, 5)
    one = order(tmp_path, rows, "a")
    sample.run(one)
    (shard,) = (tmp_path / "store" / "samples").glob("*/part-*.parquet")
    shard.write_bytes(shard.read_bytes()[:-20])
    spy.asked.clear()
    two = order(tmp_path, rows, "b")
    sample.run(two)
    assert len(spy.asked) == 20
    assert result(two) == result(one)
    assert shard.with_suffix(".damaged").exists()


def test_samples_are_on_disk_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_store, "FLUSH_S", 0.05)
    store = sample_store.SampleStore(tmp_path / "s", "e 1")
    for index in range(3):
        time.sleep(0.06)
        store.add(Completion("ab" * 16, index, "text", 2, "stop"))
    later = sample_store.SampleStore(tmp_path / "s")
    names = sample_store.tags(sample_store.tag_of(b"\xab" * 16, index) for index in range(4))
    assert later.has(names).to_pylist() == [True, True, True, False]
    first, *_, last = later.read(names, tmp_path / "spool")
    assert (first or {})["engine"] == "e 1"
    assert last is None


def test_texts_and_rows_go_through_files_where_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spy: Spy
) -> None:
    """With parts of a few kilobytes the rows and the order of asking are those of one part in memory."""
    monkeypatch.setattr(sample_store, "FLUSH_SAMPLES", 16)
    whole = order(tmp_path / "a", puzzles(tmp_path / "a", 40))
    sample.run(whole)
    asked = list(spy.asked)
    spy.asked.clear()
    monkeypatch.setattr(spool, "PART_BYTES", 4_000)
    parts = order(tmp_path / "b", puzzles(tmp_path / "b", 40))
    opened: list[int] = []
    monkeypatch.setattr(spool.Spool, "_read_part", _noting(opened, spool.Spool._read_part))
    sample.run(parts)
    assert result(parts) == result(whole)
    assert spy.asked == asked
    assert max(opened) > 4, "several parts, read one after the other"
    assert not list(Path(parts.out).glob("a*")), "nothing is left of them"


def _noting(seen: list[int], method: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    def noted(owner: Any, part: int) -> Any:
        seen.append(part)
        return method(owner, part)

    return noted


MEASURED = """
import resource, sys
from omr_runtime.engines import scripted
from omr_runtime.stages import sample
from omr_runtime.work import Work

trace = scripted.trace
scripted.trace = lambda *args: trace(*args) + " " * 6_000 + str(args[0].random())
work = Work.read(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sample.run(work)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts_of_samples(tmp_path: Path) -> None:
    """40,000 samples of six kilobytes, a quarter of a gigabyte, pass through less than their size."""
    (row,) = puzzles(tmp_path, 1)
    rows = [row | {"id": f"{i:032x}", "content": str(i)} for i in range(10_000)]
    path = tmp_path / "work.json"
    path.write_text(order(tmp_path, rows, n=4).model_dump_json())
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'runtime'}"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], env=env, stdout=subprocess.PIPE, check=True
    )
    assert int(done.stdout) < 200 << 10, "KiB"


KILLED = """
import sys, time
from pathlib import Path
from omr_runtime import engines, sample_store
from omr_runtime.engines import scripted
from omr_runtime.stages import sample
from omr_runtime.work import Work
sample_store.FLUSH_S = 0.02
answer = scripted.ScriptedEngine._answer
def slowly(self, request):
    time.sleep(0.004)
    return answer(self, request)
scripted.ScriptedEngine._answer = slowly
print("ready", flush=True)
sample.run(Work.read(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_workers_leave_nothing_half_done(tmp_path: Path) -> None:
    """A worker is killed again and again at random moments; in the end the rows are those of an undisturbed one."""
    work = order(tmp_path / "a", puzzles(tmp_path / "a", 150))
    path = tmp_path / "work.json"
    path.write_text(work.model_dump_json())
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'runtime'}"}
    rng, kills = random.Random(5), 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], env=env, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(rng.uniform(0.05, 0.4) if kills < 6 else 60)
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 2
    whole = order(tmp_path / "b", puzzles(tmp_path / "b", 150))
    sample.run(whole)
    assert result(work) == result(whole)
    keys = [
        (line["key"], line["index"])
        for part in (tmp_path / "a" / "store" / "samples").glob("*/part-*.parquet")
        for line in read_table(part)
    ]
    assert len(keys) == len(set(keys)) == 600, "no sample was drawn twice once it was kept"


# ---- a real model ----------------------------------------------------------------------------------------------


def test_a_vision_language_model_is_sampled(tmp_path: Path) -> None:
    rows = puzzles(tmp_path, 4)
    work = order(tmp_path, rows, model=TINY, n=2, max_tokens=8, engine=Transformers(batch=4))
    sample.run(work)
    found = result(work)
    assert len(found) == 8
    assert {r["finish"] for r in found} <= {"stop", "length"}
    assert found[0]["engine"].startswith("transformers ")
    assert all(1 <= r["num_tokens"] <= 8 for r in found)
    summary = json.loads((Path(work.out) / "done.json").read_text())
    assert summary["mean_prompt_tokens"] > 9
