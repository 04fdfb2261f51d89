"""Tar files to rows: samples by name, pictures kept once, and what is said of an archive that is not right."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plans
import pytest
from PIL import Image
from test_sources import read

from omr_runtime.errors import RunError
from omr_runtime.places import Bad, Good, read_place
from omr_runtime.store import ImageStore
from omrlang.compiler import load
from omrlang.patterns import named_files
from omrlang.pins import Pins
from omrlang.tars import tar_samples
from omrlang.types import Col, Index, ListOf, Lit, Webdataset

Members = list[tuple[str, bytes]]


def tar(path: Path, members: Members, mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def sample(key: str, answer: str = "4") -> Members:
    about = json.dumps({"answer": answer}).encode()
    return [
        (f"{key}.txt", f"what is {key}?".encode()),
        (f"{key}.json", about),
        (f"{key}.png", png()),
    ]


COLUMNS = {
    "question": plans.column("txt"),
    "answer": plans.expression(Index(x=Col(name="json"), at=Lit(value="answer")), 'json["answer"]'),
    "images": plans.expression(ListOf(items=(Col(name="png"),)), "[png]"),
}


def rows_of(folder: Path, path: str = "*.tar", **settings: Any) -> Any:
    return read(folder, plans.source("s", Webdataset(path=path), columns=COLUMNS, **settings))


# ---- what is right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a-*.tar", "a-{000..001}.tar", "a-{000,001}.tar"])
def test_members_of_one_name_are_one_row(tmp_path: Path, path: str) -> None:
    tar(tmp_path / "a-000.tar", [*sample("x/0"), *sample("x/1", "5")])
    tar(tmp_path / "a-001.tar", sample("0"))
    rows, _ = rows_of(tmp_path, path)
    assert [(row["question"], row["answer"]) for row in rows] == [
        ("what is x/0?", "4"),
        ("what is x/1?", "5"),
        ("what is 0?", "4"),
    ]
    assert len({row["id"] for row in rows}) == 3
    assert {tuple(row["images"]) for row in rows} == {tuple(rows[0]["images"])}, "one picture"
    assert ImageStore(tmp_path / "state").path(rows[0]["images"][0]).read_bytes() == png()


def test_endings_decide_what_a_member_is(tmp_path: Path) -> None:
    members = [
        ("7.cls", b"3\n"),
        ("7.TXT", "\ufeffü".encode()),
        ("7.seg.png", b"p"),
        ("7.mp4", b"v"),
    ]
    tar(tmp_path / "a.tar", [("./" + name, data) for name, data in members], "w:gz")
    (raw,) = read_place(Webdataset(path="a.tar"), tmp_path)
    assert raw.row == Good({"__key__": "7", "cls": 3, "txt": "ü", "seg.png": b"p", "mp4": b"v"})


def test_what_is_no_sample_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("x")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("__meta__", "x/._0.jpg", "x/0.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    assert [(found.key, found.problem) for found in tar_samples(path)] == [("x/0", None)]


def test_one_sample_is_in_memory_at_a_time(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", [(f"{number}.bin", bytes(1 << 20)) for number in range(64)])
    tracemalloc.start()
    assert sum(len(found.members["bin"]) for found in tar_samples(tmp_path / "a.tar")) == 64 << 20
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_plan_counts_samples_and_sees_another_archive(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", [*sample("0"), *sample("1")])
    place, pins = Webdataset(path="{a,b}.tar"), Pins.open(tmp_path, tmp_path / "state")
    assert pins.place(place).problem == "b.tar of {a,b}.tar does not exist"
    tar(tmp_path / "b.tar", sample("0"))
    first = pins.place(place)
    assert (first.num_rows, first.problem) == (3, None)
    tar(tmp_path / "b.tar", sample("0", "another"))
    assert pins.place(place).revision != first.revision


def test_a_column_that_no_member_has_is_found_by_check(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", sample("0"))
    recipe = tmp_path / "r.omr"
    text = 'source s from webdataset("a.tar") {{ columns {{ question = {column}, images = [png] }} }}\n'
    recipe.write_text(text.format(column="caption"))
    _, found = load(recipe)
    assert [item.message for item in found] == ["the data of `s` has no column `caption`"]
    recipe.write_text(text.format(column='json["answer"]'))
    assert load(recipe)[1] == []
    (tmp_path / "a.tar").unlink()
    assert load(recipe)[1] == [], "what is not there is the run's to say"


def test_names_that_braces_spell_out() -> None:
    names = [path.name for path in named_files(Path("no/a-{08..10}-{x,y}.tar"))]
    assert names == [f"a-{number}-{letter}.tar" for number in ("08", "09", "10") for letter in "xy"]
    for odd in ("{9..1}.tar", "{x}.tar", "{0..999999999}.tar", "{0..999}{0..999}.tar"):
        assert [path.name for path in named_files(Path("no") / odd)] == [odd]


# ---- what is not right -------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Members, str]] = {
    "outside": ([("../0.txt", b"q")], "a member's name leaves the archive: ../0.txt"),
    "absolute": ([("/etc/0.txt", b"q")], "a member's name leaves the archive: /etc/0.txt"),
    "twice": ([*sample("0"), ("0.txt", b"q")], "a member stands twice: 0.txt"),
    "again": (
        [*sample("0"), *sample("1"), ("0.txt", b"q")],
        "members of one sample are not side by side: 0.txt",
    ),
    "bytes": ([("0.txt", b"\xff")], "a member is not UTF-8: 0.txt"),
    "json": ([("0.json", b"{")], "a member is not JSON in UTF-8: 0.json"),
    "deep": ([("0.json", b"[" * 100_000)], "a member is not JSON in UTF-8: 0.json"),
    "class": ([("0.cls", b"cat")], "a member is not a whole number: 0.cls"),
    "ending": ([("README", b"hello")], "a member's name has no ending: README"),
    "key": ([("0.__key__", b"")], "a member stands twice: 0.__key__"),
    "name": ([("\udce4.txt", b"q")], "a member's name is not UTF-8: \\xe4.txt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_sample_names_file_and_member(tmp_path: Path, case: str) -> None:
    members, reason = BAD[case]
    tar(tmp_path / "a.tar", members)
    assert [raw.row for raw in read_place(Webdataset(path="a.tar"), tmp_path)][-1] == Bad(reason)
    with pytest.raises(RunError) as error:
        rows_of(tmp_path)
    assert f"{tmp_path / 'a.tar'}, row " in str(error.value)
    assert f": {reason}; `bad_rows = drop`" in str(error.value)
    tar(tmp_path / "b.tar", sample("5"))
    rows, dropped = rows_of(tmp_path, bad_rows="drop")
    assert rows[-1]["question"] == "what is 5?"
    assert dropped[-1]["reason"].startswith("bad row: ")


def test_a_link_is_no_member(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("0.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (raw,) = read_place(Webdataset(path="a.tar"), tmp_path)
    assert raw.row == Bad("a member is no plain file: 0.txt")


CUTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "within a member": (lambda data: data[:700], "unexpected end of data, after 0.txt"),
    "within a header": (lambda data: data[: 2 * 512 + 100], "truncated header"),
    "between members": (lambda data: data[: 2 * 512], "the end mark is missing, after 0.txt"),
    "damaged header": (
        lambda data: data[: 2 * 512] + b"x" * 512,
        "a damaged header (invalid header)",
    ),
    "nothing": (lambda data: b"", "not a tar file"),
    "text": (lambda data: b"question\n" * 200, "not a tar file"),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("bad_rows", ["stop", "drop"])
def test_an_archive_that_is_not_whole_stops_whatever_is_said(
    tmp_path: Path, cut: str, bad_rows: str
) -> None:
    change, reason = CUTS[cut]
    path = tar(tmp_path / "a.tar", [*sample("0"), *sample("1")])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(RunError) as error:
        rows_of(tmp_path, bad_rows=bad_rows)
    assert str(error.value).startswith(f"{path}: not readable as a tar file: ")
    assert reason in str(error.value)
    assert Pins.open(tmp_path, tmp_path).place(Webdataset(path="a.tar")).num_rows is None


def test_a_compressed_archive_that_is_cut(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [*sample("0"), *sample("1")], "w:gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunError, match=r"a\.tar: not readable as a tar file: "):
        rows_of(tmp_path)


def test_files_that_are_missing(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", sample("0"))
    with pytest.raises(RunError, match=r"\{a,b\}\.tar: no such file \(looked for .*b\.tar\)"):
        rows_of(tmp_path, "{a,b}.tar")
    with pytest.raises(RunError, match=r"\*\.tgz: no file matches"):
        rows_of(tmp_path, "*.tgz")
