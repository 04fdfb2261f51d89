"""Places to rows: formats, columns, images, and what is said when something is wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import plans
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omr_runtime import blocks
from omr_runtime.errors import RunError
from omr_runtime.order import work_order
from omr_runtime.places import Good, batch_rows, read_outline, read_place
from omr_runtime.stages import source as stage
from omr_runtime.store import ImageStore, State
from omr_runtime.work import Shards, read_rows
from omrlang.schema import Source
from omrlang.types import (
    Between,
    Binary,
    Call,
    Col,
    Csv,
    ExprNode,
    Folder,
    Index,
    Json,
    Jsonl,
    ListOf,
    Lit,
    Parquet,
    Place,
    Synthetic,
)


def read(folder: Path, spec: Source) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the stage in this process; rows and dropped."""
    state = State(folder / "state")
    made = plans.plan([spec], state.folder, folder)
    work = work_order(made, made.stages[0], state)
    stage.run(work)
    dropped = [
        row
        for shard in Shards(work.out).read()
        for row in pq.read_table(shard.files.get("dropped", shard.files["row"])).to_pylist()
        if "dropped" in shard.files
    ]
    rows = list(read_rows([_entry(work.out)]))
    return rows, dropped


def _entry(folder: str) -> Any:
    from omr_runtime.work import InputRows

    return InputRows(name="x", fingerprint="x", folder=folder)


def lines(folder: Path, *rows: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return path


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def test_json_lines(tmp_path: Path) -> None:
    lines(
        tmp_path,
        {"question": "1+1?", "answer": 2.0, "other": 1},
        "",
        {"question": "ü?", "answer": None},
    )
    rows, dropped = read(tmp_path, plans.source("s", "data.jsonl"))
    assert [(row["question"], row["answer"]) for row in rows] == [("1+1?", "2"), ("ü?", None)]
    assert {row["source"] for row in rows} == {"s"}
    assert dropped == []


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    data = [{"q": f"how much is {n}?", "a": str(n)} for n in range(7)]
    place: Place | str
    match kind:
        case "jsonl":
            lines(tmp_path, *data)
            place = "data.jsonl"
        case "json":
            (tmp_path / "d.json").write_text(json.dumps(data))
            place = Json(path="d.json")
        case "csv":
            with open(tmp_path / "d.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, ["q", "a"])
                writer.writeheader()
                writer.writerows(data)
            place = Csv(path="d.csv")
        case _:
            pq.write_table(pa.Table.from_pylist(data), tmp_path / "d.parquet")
            place = Parquet(path="d.parquet")
    columns = {"question": plans.column("q"), "answer": plans.column("a")}
    rows, _ = read(tmp_path, plans.source("s", place, columns=columns))
    assert [(row["question"], row["answer"]) for row in rows] == [(r["q"], r["a"]) for r in data]
    assert len({row["id"] for row in rows}) == len(data)


def test_a_pattern_reads_files_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": name}) + "\n")
    rows, _ = read(tmp_path, plans.source("s", "*.jsonl"))
    assert [row["question"] for row in rows] == ["a", "b"]


def test_datasets_folder_with_images(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"question": datasets.Value("string"), "images": datasets.Image()})
    rows = {"question": ["what?"], "images": [{"bytes": png(), "path": None}]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features)}).save_to_disk(
        tmp_path / "set"
    )
    found, _ = read(tmp_path, plans.source("s", Folder(path="set")))
    assert found[0]["question"] == "what?"
    image = ImageStore(tmp_path / "state").open(found[0]["images"][0])
    assert (image.mode, image.size) == ("RGB", (8, 8))
    with pytest.raises(RunError, match="no split 'test'; it has train"):
        read(tmp_path, plans.source("s", Folder(path="set", split="test")))


def test_folder_of_parquet_files(tmp_path: Path) -> None:
    for number in range(2):
        path = tmp_path / "set" / f"part{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([{"question": f"{number}"}]), path)
    rows, _ = read(tmp_path, plans.source("s", Folder(path="set")))
    assert [row["question"] for row in rows] == ["0", "1"]


def test_shapes(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, plans.source("s", Synthetic(name="shapes", n=3, seed=5)))
    assert len(rows) == 3
    assert all(
        row["question"] and row["answer"] and row["thinking"] and row["images"] for row in rows
    )


def test_columns_are_expressions(tmp_path: Path) -> None:
    lines(
        tmp_path,
        {"body": "A car.", "ask": "How fast?", "picks": ["x", "y"], "label": "B", "odd name": 1},
    )
    columns = {
        "question": plans.expression(
            Binary(
                op="+",
                left=Binary(op="+", left=Col(name="body"), right=Lit(value=" ")),
                right=Col(name="ask"),
            ),
            'body + " " + ask',
        ),
        "options": plans.column("picks"),
        "answer": plans.column("label"),
        "extra.n": plans.column("odd name"),
    }
    rows, _ = read(tmp_path, plans.source("s", "data.jsonl", columns=columns))
    assert rows[0]["question"] == "A car. How fast?"
    assert rows[0]["options"] == ["x", "y"]
    assert rows[0]["answer"] == "y", "with options the answer is the option's text"
    assert json.loads(rows[0]["extra"]) == {"n": 1}


def test_images_from_files(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    lines(tmp_path, {"question": "q", "image": "pictures/a.png"})
    columns = {
        "question": plans.column("question"),
        "images": plans.expression(ListOf(items=(Col(name="image"),)), "[image]"),
    }
    rows, _ = read(tmp_path, plans.source("s", "data.jsonl", columns=columns))
    assert ImageStore(tmp_path / "state").path(rows[0]["images"][0]).read_bytes() == png()


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/hostname", "a/../../secret.png", "link.png"]
)
def test_rows_may_name_no_file_outside_their_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    lines(folder, {"question": "q", "images": [path]})
    with pytest.raises(RunError, match=r"data\.jsonl:1: image lies outside"):
        read(tmp_path, plans.source("s", "data/data.jsonl"))


BAD: list[tuple[Any, str]] = [
    ("{nonsense", r"data\.jsonl:2: not JSON"),
    ("[1]", r"data\.jsonl:2: a JSON object is needed"),
    ({"answer": "1"}, r"data\.jsonl:2: no question"),
    ({"question": "q", "images": ["gone.png"]}, r"data\.jsonl:2: missing image: gone\.png"),
    ({"question": "q", "images": ["text.png"]}, r"data\.jsonl:2: unreadable image: text\.png"),
    ({"question": "q", "images": ["http://x/y.png"]}, r"data\.jsonl:2: image is not a file"),
    (
        {"question": "q", "options": ["a", "b"], "answer": "C"},
        r"data\.jsonl:2: the answer is none of the options",
    ),
    ({"question": {"a": 1}}, r"data\.jsonl:2: `question` is no text"),
    ('{"question": "\\ud800"}', r"data\.jsonl:2: `question` holds half a character"),
    ({"question": "q", "images": ["loop.png"]}, r"data\.jsonl:2: missing image: loop\.png"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[message[14:40] for _, message in BAD])
def test_a_bad_row_stops_with_its_place_or_is_dropped(
    tmp_path: Path, bad: Any, message: str
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "loop.png").symlink_to("loop.png")
    lines(tmp_path, {"question": "fine"}, bad, {"question": "fine too"})
    with pytest.raises(RunError, match=message):
        read(tmp_path, plans.source("s", "data.jsonl"))
    rows, dropped = read(tmp_path, plans.source("s", "data.jsonl", bad_rows="drop"))
    assert [row["question"] for row in rows] == ["fine", "fine too"]
    assert [row["reason"].startswith("bad row: ") for row in dropped] == [True]


def test_what_is_wrong_with_a_place(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('[{"a": 1},\n {"a": }]')
    (tmp_path / "d.parquet").write_text("no parquet")
    (tmp_path / "d.csv").write_text("a,b\n1,2,3\n")
    (tmp_path / "e.csv").write_text("question,,,answer,answer\n1,,,2,3\n")
    (tmp_path / "e.json").write_text(f'[{{"question": {"9" * 5_000}}}]')
    lines(tmp_path, {"question": "q"})
    wrong: list[tuple[Place | str, str]] = [
        ("gone.jsonl", "gone.jsonl: no such file"),
        (Json(path="d.json"), r"d\.json:2: not JSON"),
        (Json(path="data.jsonl"), "a JSON array of objects is needed"),
        (Parquet(path="d.parquet"), r"d\.parquet: not readable as Parquet"),
        (Csv(path="d.csv"), r"d\.csv:2: 3 fields, the first line names 2"),
        (Csv(path="e.csv"), r"e\.csv:1: two columns are called 'answer'"),
        (Json(path="e.json"), r"e\.json: not readable as JSON"),
        ("~nobody-of-this-name/d.jsonl", "no such file"),
        (Folder(path="gone"), "gone: no such folder"),
    ]
    for place, message in wrong:
        with pytest.raises(RunError, match=message):
            read(tmp_path, plans.source("s", place))


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    lines(tmp_path, {"body": "q"})
    with pytest.raises(
        RunError, match=r"columns\.question: no column 'bodi' in data\.jsonl; it has body"
    ):
        read(tmp_path, plans.source("s", "data.jsonl", columns={"question": plans.column("bodi")}))


def test_a_column_that_few_rows_have(tmp_path: Path) -> None:
    lines(tmp_path, *[{"question": "q"}] * 150, {"question": "q", "solution": "4"})
    columns = {"question": plans.column("question"), "answer": plans.column("solution")}
    rows, _ = read(tmp_path, plans.source("s", "data.jsonl", columns=columns))
    assert [row["answer"] for row in rows] == [None] * 150 + ["4"]


A, B = Col(name="a"), Col(name="b")
ODD: list[tuple[str, str, ExprNode, str | None]] = [
    ("half a character in `extra`", '"\\ud83d"', A, "`extra` holds half a character"),
    ("half a character in options", '["\\ud83d", "b"]', Call(fn="shuffled", args=(A,)), "half a character"),
    ("no number in a list", "[1, Infinity]", A, None),
    ("a place that is no number", '{"l": NaN}', Index(x=B, at=Index(x=A, at=Lit(value="l"))), None),
    ("a place beyond all", "9" * 400, Index(x=B, at=A), None),
    ("a place that is a list", "[1]", Index(x=Lit(value="text"), at=A), "a number is needed"),
    ("a key that is a list", "[1]", Index(x=Col(name="c"), at=A), None),
    ("lists without an order", "[1]", Binary(op="<", left=A, right=B), "cannot order"),
    ("a number beyond all", "9" * 400, Between(x=A, lo=Lit(value=0), hi=Lit(value=1)), None),
    ("nested too deep", "[" * 900 + "]" * 900, Call(fn="text", args=(A,)), "nested too deep"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "tree", "reason"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
def test_an_odd_value_is_a_bad_row_or_missing(
    tmp_path: Path, value: str, tree: ExprNode, reason: str | None
) -> None:
    """Whatever raw data holds, it is never a traceback, and with `bad_rows = drop` it stops nothing."""
    odd = f'{{"question": "q", "a": {value}, "b": ["x"], "c": {{"k": 1}}}}'
    lines(tmp_path, odd, {"question": "fine", "a": None, "b": [], "c": {}})
    name = "options" if isinstance(tree, Call) and tree.fn == "shuffled" else "extra.x"
    columns = {"question": plans.column("question"), name: plans.expression(tree, "x")}
    rows, dropped = read(
        tmp_path, plans.source("s", "data.jsonl", columns=columns, bad_rows="drop")
    )
    assert [row["question"] for row in rows] == (["fine"] if reason else ["q", "fine"])
    assert not any(word in (row["extra"] or "") for word in ("NaN", "Infinity") for row in rows)
    if reason:
        assert len(dropped) == 1
        with pytest.raises(RunError, match=f":1: .*{reason}"):
            read(tmp_path, plans.source("s", "data.jsonl", columns=columns))


def test_declared_rows_are_checked(tmp_path: Path) -> None:
    lines(tmp_path, {"question": "q"})
    with pytest.raises(RunError, match="declared are 5 rows, there are 1"):
        read(tmp_path, plans.source("s", "data.jsonl", rows=5))


def test_where_leaves_a_verdict_and_a_reason(tmp_path: Path) -> None:
    lines(tmp_path, *({"question": "q", "answer": answer} for answer in ("a", "b", None)))
    where = plans.expression(
        Binary(op="==", left=Col(name="answer"), right=Lit(value="a")), 'answer == "a"'
    )
    rows, dropped = read(tmp_path, plans.source("s", "data.jsonl", where=where))
    assert [row["answer"] for row in rows] == ["a"]
    assert [row["reason"] for row in dropped] == ['answer == "a"'] * 2


def test_take_nests_and_keeps_ids(tmp_path: Path) -> None:
    lines(tmp_path, *({"question": f"q{n}"} for n in range(1_200)))
    few, dropped = read(tmp_path, plans.source("s", "data.jsonl", take=20))
    more, _ = read(tmp_path, plans.source("s", "data.jsonl", take=50))
    every, _ = read(tmp_path, plans.source("s", "data.jsonl"))
    ids = [{row["id"] for row in rows} for rows in (few, more, every)]
    assert [len(found) for found in ids] == [20, 50, 1_200]
    assert ids[0] < ids[1] < ids[2]
    assert {row["reason"] for row in dropped} == {"take"}
    assert len(dropped) == 1_180
    other, _ = read(tmp_path, plans.source("s", "data.jsonl", take=20, seed=8))
    assert {row["id"] for row in other} != ids[0]


def test_a_restarted_worker_makes_the_same_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PLAIN_SLICE", 500)
    monkeypatch.setattr(blocks, "NUM_LINES", 250)
    lines(tmp_path, *({"question": f"q{n}"} for n in range(1_200)))
    spec = plans.source("s", "data.jsonl")
    whole, _ = read(tmp_path, spec)
    out = next(path for path in (tmp_path / "state/store").iterdir() if path.name != "images")
    for name in ("shard-00001.json", "done.json"):
        (out / name).unlink()
    kept = (out / "part-00000.parquet").stat().st_mtime_ns
    again, _ = read(tmp_path, spec)
    assert again == whole
    assert (out / "part-00000.parquet").stat().st_mtime_ns == kept


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_big_rows_are_read_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """And cut at the same rows as small ones, so that shards stay what they are."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 300)
    monkeypatch.setattr(blocks, "NUM_LINES", 10)
    monkeypatch.setattr(blocks, "NUM_ROWS", 10)
    data = [{"question": "q" * (100 if n > 15 else 1)} for n in range(25)]
    lines(tmp_path, *data)
    (tmp_path / "d.json").write_text(json.dumps(data))
    place: Place = Jsonl(path="data.jsonl") if kind == "jsonl" else Json(path="d.json")
    sizes = [block.num_rows for block in blocks.read_blocks(place, tmp_path)]
    assert sizes in ([10, 8, 2, 3, 2], [10, 9, 1, 3, 2])
    rows, _ = read(tmp_path, plans.source("s", place))
    assert [row["question"] for row in rows] == [row["question"] for row in data]


def test_parquet_with_files_in_it_is_read_few_rows_at_a_time(tmp_path: Path) -> None:
    file = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    plain = pa.schema([("question", pa.string()), ("options", pa.list_(pa.string()))])
    assert batch_rows(plain, 1_000) == 1_000
    for kind in (pa.large_binary(), file, pa.list_(file), pa.map_(pa.string(), pa.binary())):
        few = batch_rows(plain.append(pa.field("image", kind)), 1_000)
        assert few < 100
        assert 1_000 % few == 0
    rows = [{"question": str(n), "image": {"bytes": png(), "path": None}} for n in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    sizes = [b.num_rows for b in blocks.read_blocks(Parquet(path="d.parquet"), tmp_path)]
    assert sizes == [25, 25, 10]


@pytest.mark.parametrize("mapped", [True, False])
def test_columns_of_parquet_that_nobody_asks_for_are_not_read(tmp_path: Path, mapped: bool) -> None:
    """Theirs are broken here. Pictures among them do not cut the rows into small parts either."""
    names = ["q", "picture"] if mapped else ["question", "picture"]
    table = pa.table([[f"{n}?" for n in range(60)], [bytes([n]) * 999 for n in range(60)]], names)
    pq.write_table(table, tmp_path / "d.parquet", compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "d.parquet").read_bytes())
    start = pq.read_metadata(tmp_path / "d.parquet").row_group(0).column(1).data_page_offset
    data[start : start + 64] = b"\xff" * 64
    (tmp_path / "d.parquet").write_bytes(data)
    place = Parquet(path="d.parquet")
    with pytest.raises(RunError, match=r"cannot be read|not readable as Parquet"):
        list(blocks.read_blocks(place, tmp_path))
    columns = {"question": plans.column("q")} if mapped else {}
    rows, _ = read(tmp_path, plans.source("s", place, columns=columns, take=50))
    assert len(rows) == 50
    assert [b.num_rows for b in blocks.read_blocks(place, tmp_path, {names[0]}.__contains__)] == [
        60
    ]


def test_options_are_shuffled_alike_in_every_format(tmp_path: Path) -> None:
    """By the raw `id`, which no expression names."""
    data = [{"id": f"r{n}", "q": "?", "o": ["yes", "no", "maybe"]} for n in range(20)]
    lines(tmp_path, *data)
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "d.parquet")
    shuffled = plans.expression(Call(fn="shuffled", args=(Col(name="o"),)), "shuffled(o)")
    columns = {"question": plans.column("q"), "options": shuffled}
    orders = []
    for place in (Jsonl(path="data.jsonl"), Parquet(path="d.parquet")):
        rows, _ = read(tmp_path, plans.source(place.kind, place, columns=columns))
        orders.append([row["options"] for row in rows])
    assert orders[0] == orders[1]
    assert len(set(map(tuple, orders[0]))) > 3


def test_a_column_of_parquet_is_asked_for_by_its_whole_name(tmp_path: Path) -> None:
    """Arrow takes a name with a dot for a part of a column as well. Without a column that is asked for there are rows still."""
    rows = [{"a.b": "whole", "a": {"b": "part", "c": 1}, "a.c": "other"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    place = Parquet(path="d.parquet")

    def asked(*names: str) -> Any:
        (block,) = blocks.read_blocks(place, tmp_path, names.__contains__)
        (raw,) = block.raws()
        assert isinstance(raw.row, Good)
        return {k: v for k, v in raw.row.values.items() if k in names}

    for names in (["a.b"], ["a"], ["a", "a.b"], ["a.c", "a.b"]):
        assert asked(*names) == {name: rows[0][name] for name in names}
    assert asked("nothing") == {}


def test_a_name_twice_in_parquet_stays_odd(tmp_path: Path) -> None:
    table = pa.table([["x"], ["y"], ["z"]], names=["q", "q", "other"])
    pq.write_table(table, tmp_path / "d.parquet")
    (block,) = blocks.read_blocks(Parquet(path="d.parquet"), tmp_path, {"q"}.__contains__)
    assert block.columns(["q"], []) is None, "such rows are looked at one by one"


def test_rows_are_counted_as_they_are_read(tmp_path: Path) -> None:
    """What ``take`` picks from is listed without what rows hold."""
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"q": 1}\n\n  \n{broken\n{"q": 2}')
    (tmp_path / "b.jsonl").write_text('{"q": 3}\n\n')
    (tmp_path / "c.json").write_text('[{"q": 1}, 2]')
    table = pa.table({"q": list(range(7))})
    for name in ("d", "e"):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=3)
    pq.write_table(table.slice(0, 0), tmp_path / "f.parquet")
    for place in (Jsonl(path="*.jsonl"), Json(path="c.json"), Parquet(path="*.parquet")):
        listed, read = (
            [(raw.file, raw.position) for raw in how(place, tmp_path)]
            for how in (read_outline, read_place)
        )
        assert listed == read
        assert listed


def test_puzzlevqa(tmp_path: Path, shared_data: Path) -> None:
    """Real rows with pictures; numbers and texts mixed in options and answers."""
    columns = {
        "question": plans.column("question"),
        "answer": plans.column("answer"),
        "options": plans.column("options"),
        "images": plans.expression(ListOf(items=(Col(name="image"),)), "[image]"),
    }
    path = str(shared_data / "puzzlevqa/circle_size_number.json")
    rows, _ = read(tmp_path, plans.source("s", path, columns=columns, take=30))
    assert len(rows) == 30
    assert all(row["answer"] in row["options"] for row in rows)


def test_options_that_a_set_keeps_as_the_text_of_a_list(tmp_path: Path) -> None:
    """As MMMU has them: a letter for an answer, an empty list for an open question, up to seven pictures."""
    lines(
        tmp_path,
        {"question": "q", "options": "['$6', \"it's 7\"]", "answer": "B", "a": None, "b": "b.png"},
        {"question": "open", "options": "[]", "answer": "24"},
        {"question": "bad", "options": "$6 or $7", "answer": "A"},
    )
    (tmp_path / "b.png").write_bytes(png())
    columns = {
        "question": plans.column("question"),
        "answer": plans.column("answer"),
        "options": plans.expression(Call(fn="list", args=(Col(name="options"),)), "list(options)"),
        "images": plans.expression(ListOf(items=(Col(name="a"), Col(name="b"))), "[a, b]"),
    }
    spec = plans.source("s", "data.jsonl", columns=columns)
    with pytest.raises(RunError, match=r"data\.jsonl:3: a column cannot be made: `list` takes"):
        read(tmp_path, spec)
    rows, dropped = read(tmp_path, spec.model_copy(update={"bad_rows": "drop"}))
    assert [(row["answer"], row["options"], len(row["images"])) for row in rows] == [
        ("it's 7", ["$6", "it's 7"], 1),
        ("24", None, 0),
    ]
    assert len(dropped) == 1


def test_indexing_options(tmp_path: Path) -> None:
    lines(tmp_path, {"question": "q", "picks": ["x", "y"]})
    first = plans.expression(Index(x=Col(name="picks"), at=Lit(value=0)), "picks[0]")
    rows, _ = read(
        tmp_path,
        plans.source(
            "s", "data.jsonl", columns={"question": plans.column("question"), "answer": first}
        ),
    )
    assert rows[0]["answer"] == "x"
