"""Lineage: one transaction a commit, readers beside a writer, and what `show`, `why` and `funnel` tell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import drive
import duckdb
import plans
import pytest

from omr_runtime import funnel, lineage, story
from omr_runtime.errors import RunError
from omr_runtime.executor import execute
from omr_runtime.lineage import database, writing
from omr_runtime.progress import PlainDisplay
from omr_runtime.store import State
from omr_runtime.work import Shards
from omrlang.cli import main
from omrlang.types import Binary, Col, Lit, UpTo

STAGE = "f" * 32


def shard(folder: Path, number: int = 0, n: int = 3) -> Any:
    rows = [
        {"id": f"{number}-{i}", "source": "s", "content": f"c{i}", "num_tokens": 10 + i}
        for i in range(n)
    ]
    edges = [
        {"child": row["id"], "parent": f"p{i}", "role": "sampled_from"}
        for i, row in enumerate(rows)
    ]
    drops = [{"row": f"d{number}", "source": "s", "reason": "because"}]
    shards = Shards(folder)
    shards.write(number, {"row": rows, "edge": edges, "dropped": drops})
    return shards.read()[number]


def test_a_shard_is_taken_over_once(tmp_path: Path) -> None:
    path = tmp_path / "lineage.duckdb"
    for _ in range(2):
        with lineage.write(path, "run") as writer:
            writer.add_shard(STAGE, shard(tmp_path / "x"))
    with lineage.read(path) as reader:
        counts = reader.counts(STAGE)
    assert (counts.num_rows, counts.num_dropped, counts.num_shards) == (3, 1, 1)
    assert (counts.rows_by_source, counts.by_reason) == ({"s": 3}, {"because": 1})
    assert (counts.mean_tokens, counts.num_tokens) == (11.0, 33)


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lineage.duckdb"

    def commit_and_fail() -> None:
        with lineage.write(path, "run") as writer:
            writer.add_shard(STAGE, shard(tmp_path / "x"))
            raise KeyError("driver dies here")

    with pytest.raises(KeyError):
        commit_and_fail()
    with lineage.read(path) as reader:
        assert reader.counts(STAGE).num_rows == 0
        assert reader.counts(STAGE).num_shards == 0


def test_forgetting_takes_back_everything(tmp_path: Path) -> None:
    path = tmp_path / "lineage.duckdb"
    with lineage.write(path, "run") as writer:
        writer.start_stage(STAGE, "s", "mix", "{}", (), None)
        writer.add_shard(STAGE, shard(tmp_path / "x"))
    with lineage.write(path, "run") as writer:
        writer.forget_stage(STAGE)
    with lineage.read(path) as reader:
        assert reader.stages() == []
        assert reader.counts(STAGE) == lineage.Counts()


def test_an_earlier_lineage_is_brought_up_by_whoever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lineage.duckdb"
    now = database.MIGRATIONS
    before = next(number for number, text in enumerate(now) if "table funnel" in text)
    with monkeypatch.context() as earlier:
        earlier.setattr(database, "MIGRATIONS", now[:before])
        earlier.setattr(lineage.Writer, "_count", lambda *given: None)
        with lineage.write(path, "run") as writer:
            writer.add_shard(STAGE, shard(tmp_path / "x"))
    with lineage.read(path) as reader:
        counts = reader.counts(STAGE)
        assert (counts.num_rows, counts.num_dropped, counts.num_tokens) == (3, 1, 33)
        assert counts.by_reason == {"because": 1}
        assert reader.ask("select count(*) as n from child") == reader.ask(
            "select count(*) as n from edge"
        )


def test_sorted_edges_answer_as_unsorted_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lineage.duckdb"
    with lineage.write(path, "run") as writer:
        writer.start_stage(STAGE, "s", "sample", "{}", (), None)
        writer.add_shard(STAGE, shard(tmp_path / "x"))

    def answers() -> list[object]:
        with lineage.read(path) as reader:
            ids = {row["id"] for row in reader.ask("select child as id from edge union select parent from edge")}  # fmt: skip
            return [(reader.edges_up(one), reader.edges_down(one)) for one in sorted(ids)]

    before = answers()
    assert any(down for _, down in before)
    monkeypatch.setattr(writing, "SORTED_FROM", 1)
    for _ in range(2):
        with lineage.write(path, "run") as writer:
            writer.sort_edges(STAGE)
            writer.end_stage(STAGE, "done", 1.0, {})
        assert answers() == before


def test_a_reader_waits_for_a_writer(tmp_path: Path) -> None:
    """DuckDB keeps readers of other processes out while a writer is open."""
    path = tmp_path / "lineage.duckdb"
    with lineage.write(path, "run") as writer:
        writer.add_shard(STAGE, shard(tmp_path / "x"))
    code = "import duckdb, sys, time; db = duckdb.connect(sys.argv[1]); print('open', flush=True); time.sleep(1)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(duckdb.IOException):
        duckdb.connect(str(path), read_only=True)
    with lineage.read(path) as reader:
        assert reader.counts(STAGE).num_rows == 3
    process.wait()


def test_a_reader_that_stays_stops_no_run(tmp_path: Path) -> None:
    """A commit on the way is put off to the next one; the last one waits."""
    path = tmp_path / "lineage.duckdb"
    with lineage.write(path, "run") as writer:
        writer.add_shard(STAGE, shard(tmp_path / "x"))
    code = "import duckdb, sys, time; db = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); time.sleep(2)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with pytest.raises(lineage.Busy), lineage.write(path, "run", patience_s=0.1):
            pass
        with lineage.write(path, "run") as writer:
            writer.add_shard(STAGE, shard(tmp_path / "x"))


def test_readers_while_a_run_goes_on(tmp_path: Path) -> None:
    """`show` and `plan` work during a run."""
    process = drive.start([plans.shapes("many", 3_000)], tmp_path / "state", tmp_path)
    seen: list[int] = []
    while process.poll() is None:
        if (tmp_path / "state/lineage.duckdb").exists():
            seen += [entry["kept"] for entry in story.stages(tmp_path / "state")]
            with lineage.read(State(tmp_path / "state").lineage) as reader:
                reader.runs()
        time.sleep(0.1)
    code, out = drive.finish(process)
    assert code == 0, out
    assert seen == sorted(seen)


def test_a_lineage_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lineage.duckdb"
    with lineage.write(path, "run"):
        pass
    with duckdb.connect(str(path)) as db:
        db.execute("insert into schema_version values (999)")
    with pytest.raises(RunError, match="version 999"), lineage.write(path, "run"):
        pass


def test_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "lineage.duckdb"
    path.write_text("no database at all, only text that goes on and on")
    with pytest.raises(RunError, match="cannot be opened"), lineage.write(path, "run"):
        pass
    with pytest.raises(RunError, match="nothing was run"), lineage.read(tmp_path / "gone"):
        pass


# ---- what people ask -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a source that filters, one that does not, and their mix with a duplicate."""
    folder = tmp_path_factory.mktemp("ran")
    rows = [{"question": f"what is {i % 8}?", "answer": str(i % 8)} for i in range(10)]
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = plans.expression(
        Binary(op="!=", left=Col(name="answer"), right=Lit(value="3")), 'answer != "3"'
    )
    specs = [
        plans.source("words", "words.jsonl", where=where),
        plans.shapes("puzzles", 6),
        plans.mix("both", {"words": UpTo(n=99), "puzzles": UpTo(n=4)}),
    ]
    code, _ = execute(
        plans.plan(specs, folder / "state", folder), folder / "state", show=PlainDisplay()
    )
    assert code == 0
    return folder / "state"


def test_funnels_add_up(ran: Path) -> None:
    words, both = funnel.count(ran, "words"), funnel.count(ran, "both")
    assert (words.num_in, words.num_kept, words.num_dropped) == (10, 9, 1)
    assert (both.num_in, both.num_kept, both.num_dropped) == (15, 11, 4)
    assert words.adds_up
    assert both.adds_up
    assert set(both.lines) == {
        ("words", None, 7),
        ("words", "duplicate", 2),
        ("puzzles", None, 4),
        ("puzzles", "amount", 2),
    }
    assert both.text().startswith("mix.both: 15 in = 11 kept + 4 dropped")


def test_why_tells_the_whole_path(ran: Path) -> None:
    kept = next(row for row in story.rows(ran, "both", 20) if row["question"] == "what is 0?")
    text = "\n".join(story.why(ran, kept["id"][:8]))
    assert "question      what is 0?" in text
    assert "source.words  read from" in text
    assert 'answer != "3": yes' in text
    assert "mix.both      unique = exact: yes" in text
    assert "its duplicate" in text


@pytest.mark.parametrize(
    ("first", "carried", "told"),
    [
        (5, 0, "20 tokens, finish stop"),
        (None, None, "20 tokens, finish stop"),
        (3, 8, "20 tokens, 8 of them by older weights, at the earliest those with which step 3 began, finish stop"),
        (4, 20, "20 tokens, drawn by the weights with which step 4 began, finish stop"),
    ],
)  # fmt: skip
def test_why_tells_whose_weights_drew_a_rollout(
    ran: Path, tmp_path: Path, first: int | None, carried: int | None, told: str
) -> None:
    state = tmp_path / "state"
    shutil.copytree(ran, state)
    row = story.rows(ran, "both", 1)[0]["id"]
    line = {
        "id": "r0", "step": 5, "row": row, "sample_index": 0, "reward": 1.0, "advantage": 0.5, "num_tokens": 20,
        "finish": "stop", "first_step": first, "carried_tokens": carried,
    }  # fmt: skip
    shards = Shards(tmp_path / "rolled")
    shards.write(99, {"rollout": [line]})
    with lineage.read(State(state).lineage) as reader:
        (stage,) = (one for one in reader.stages() if one["name"] == "both")
    with lineage.write(State(state).lineage, "run") as writer:
        writer.add_shard(stage["fingerprint"], shards.read()[0])
    text = "\n".join(story.why(state, "r0"))
    assert f"rollout at step 5: reward 1, advantage 0.5, {told}" in text
    of_row = "\n".join(story.why(state, row))
    older = first not in (None, 5)
    begun = f", at the earliest by the weights with which step {first} began" if older else ""
    assert f"1 rollouts at step 5{begun}, mean reward 1" in of_row


def test_why_not_names_the_rule(ran: Path) -> None:
    with lineage.read(State(ran).lineage) as reader:
        drops = {
            drop["reason"]: drop["row"] for drop in reader.ask('select "row", reason from dropped')
        }
    assert "dropped in mix.both: duplicate" in "\n".join(story.why_not(ran, drops["duplicate"]))
    assert "dropped in mix.both: amount" in story.why_not(ran, drops["amount"])
    assert 'dropped in source.words: answer != "3"' in story.why_not(ran, drops['answer != "3"'])
    kept = story.rows(ran, "both", 1)[0]["id"]
    assert story.why_not(ran, kept)[1].startswith("dropped nowhere; it is in source.")


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (["show", "runs"], 0, "test.omr"),
        (["show", "stages"], 0, "mix.both"),
        (["show", "rows", "both", "-n", "2"], 0, "question"),
        (["show", "rows", "both", "--json", "-n", "1"], 0, '"question"'),
        (["show", "rows", "nothing"], 1, "no stage 'nothing' was run"),
        (["show", "rows"], 64, "needs the name of a stage"),
        (["funnel", "words"], 0, "10 in = 9 kept + 1 dropped"),
        (["funnel", "words", "--json"], 0, '"adds_up": true'),
        (["why", "zzz"], 1, "no row's id starts with 'zzz'"),
        (["why-not", "zzz"], 1, "no row's id starts with 'zzz'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands(
    ran: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, shown: str
) -> None:
    assert main([*arguments, "--state", str(ran)]) == code
    out = capsys.readouterr()
    assert shown in out.out + out.err
    assert "Traceback" not in out.err


def test_an_ambiguous_id_lists_what_it_may_mean(ran: Path) -> None:
    with pytest.raises(RunError, match="is the start of several ids"):
        story.why(ran, "")


def test_writers_take_turns(tmp_path: Path) -> None:
    """Two threads of one process, as tests may have them, never mix their transactions."""
    path = tmp_path / "lineage.duckdb"

    def commit(number: int) -> None:
        made = shard(tmp_path / str(number), 0)
        with lineage.write(path, "run") as writer:
            writer.add_shard(f"{number}" * 32, made)

    with lineage.write(path, "run"):
        pass
    threads = [threading.Thread(target=commit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with lineage.read(path) as reader:
        assert [reader.counts(f"{number}" * 32).num_rows for number in range(2)] == [3, 3]


def test_a_file_that_is_no_lineage_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path says "lock", which is no word that somebody else has it open."""
    path = tmp_path / "blocks" / "lineage.duckdb"
    path.parent.mkdir()
    path.write_bytes(b"nothing of a database" * 1_000)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    with pytest.raises(RunError, match="not a valid DuckDB database") as caught, lineage.read(path):
        raise AssertionError("it cannot be read")
    assert not isinstance(caught.value, lineage.Busy)
