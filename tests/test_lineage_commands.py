"""``omr sql`` and ``omr trace`` over a small run."""

from __future__ import annotations

import json
from pathlib import Path

import plans
import pytest

from omr_runtime import story
from omr_runtime.executor import execute
from omr_runtime.export.dataset import export_dataset
from omr_runtime.progress import PlainDisplay
from omr_runtime.store import ImageStore, State, read_index
from omrlang.cli import main
from omrlang.types import Binary, Col, Lit, UpTo


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code
    out = capsys.readouterr()
    return out.out + out.err


def test_sql_over_the_lineage_and_the_rows(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = 'select source, count(*) as n from "both" group by 1 order by 1'
    lines = said(capsys, "sql", query, "--json", "--state", str(ran)).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"source": "puzzles", "n": 4},
        {"source": "words", "n": 7},
    ]
    joined = """select d.reason, w.question from dropped d join words w on w.id = d."row"
                where d.reason = 'duplicate' order by all"""
    assert "what is 0?" in said(capsys, "sql", joined, "--state", str(ran))


def test_sql_changes_nothing_and_says_what_is_wrong(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = State(ran).lineage.read_bytes()
    assert "read-only" in said(capsys, "sql", "delete from edge", "--state", str(ran), code=1)
    assert "syntax error" in said(capsys, "sql", "selec", "--state", str(ran), code=1)
    assert State(ran).lineage.read_bytes() == before


def test_sql_shows_texts_and_columns_as_they_are(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Marks of a chat template are none of a table's, and no column hides another of its name."""
    query = "select 'a [/INST] [bold]b :x:' as \"q[/b]\", true as q, 2 as n, 3 as n"
    told = said(capsys, "sql", query, "--state", str(ran))
    assert "a [/INST] [bold]b :x:" in told
    assert told.splitlines()[1].split() == ["q[/b]", "q", "n", "n", "1"]
    assert told.splitlines()[3].split()[-3:] == ["true", "2", "3"]
    odd = "select 'nan'::double as x, ['inf'::double, 1] as y, 1 as x"
    line = said(capsys, "sql", odd, "--json", "--state", str(ran))
    assert line == '{"x": null, "y": [null, 1.0], "x_1": 1}\n'


@pytest.mark.parametrize("query", ["", " ; ", "-- nothing"])
def test_sql_of_nothing(ran: Path, capsys: pytest.CaptureFixture[str], query: str) -> None:
    assert "is empty" in said(capsys, "sql", query, "--state", str(ran), code=1)


def test_a_number_of_rows_is_one(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "show", "rows", "both", "-n", "-1", "--state", str(ran), code=64)
    assert "`-1` is no number of rows" in told


def test_a_query_while_a_run_takes_the_artifact_away(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark, _ = story.find_stage(State(ran), "both")
    gone = State(ran).artifact(mark) / "shard-00077.json"
    gone.symlink_to("gone")
    try:
        for arguments in (("show", "rows", "both"), ("sql", "select 1")):
            assert "missing or damaged" in said(capsys, *arguments, "--state", str(ran), code=5)
    finally:
        gone.unlink()


def test_a_state_folder_whose_name_is_a_pattern(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its neighbours hold the same artifacts, and none of their rows counts here."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "a"}) + "\n")
    specs = [plans.source("one", "a.jsonl"), plans.mix("two", {"one": UpTo(n=9)})]
    for state in (tmp_path / "arm1", tmp_path / "arm*"):
        made = plans.plan(specs, state, tmp_path)
        assert execute(made, state, show=PlainDisplay())[0] == 0
    capsys.readouterr()
    counted = """select (select count(*) from one) as one, (select count(*) from two) as two,
                 (select count(*) from "row") as "all" """
    told = said(capsys, "sql", counted, "--json", "--state", str(state))
    assert json.loads(told) == {"one": 1, "two": 1, "all": 2}
    assert "two: 1 in = 1 kept" in said(capsys, "funnel", "two", "--state", str(state))
    shown = said(capsys, "show", "rows", "two", "--json", "--state", str(state))
    assert json.loads(shown)["question"] == "a"


def test_trace_of_what_a_source_reads(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "trace", str(ran.parent / "words.jsonl"), "--state", str(ran))
    lines = [line.strip() for line in told.splitlines()]
    assert lines[0].startswith("read by source.words")
    assert lines[0].endswith(": 10 rows")
    assert lines[1:] == [
        "source.words: 9 kept",
        'source.words: 1 dropped: answer != "3"',
        "mix.both: 7 kept",
        "mix.both: 2 dropped: duplicate",
    ]


def test_trace_of_what_a_stage_wrote(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {entry["name"]: mark for mark, entry in read_index(State(ran))["stages"].items()}
    part = State(ran).artifact(names["words"]) / "part-00000.parquet"
    told = said(capsys, "trace", str(part), "--state", str(ran))
    assert told.startswith("written by source.words")
    assert "read by mix.both" in told


def test_trace_of_a_picture(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = next(row for row in story.rows(ran, "both", 99) if row["images"])
    copy = tmp_path / "picture.png"
    copy.write_bytes(ImageStore(ran).path(row["images"][0]).read_bytes())
    told = said(capsys, "trace", str(copy), "--state", str(ran))
    assert told.startswith(f"picture {row['images'][0]}")
    assert f"rows of mix.both: {row['id'][:12]}" in told


def test_trace_of_an_export(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_dataset(ran, "both", tmp_path / "set", "0")
    (file,) = (tmp_path / "set" / "data").iterdir()
    told = said(capsys, "trace", str(file), "--state", str(ran))
    assert "11 rows, of which" in told
    assert "11 are in mix.both" in told


def test_trace_of_a_stranger(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("x")
    told = said(capsys, "trace", str(tmp_path / "x.txt"), "--state", str(ran), code=1)
    assert "has nothing to do with the runs" in told
    told = said(capsys, "trace", str(tmp_path / "y.txt"), "--state", str(ran), code=1)
    assert "no such file" in told
