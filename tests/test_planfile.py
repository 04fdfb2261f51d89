"""Saved plans: the same bytes each time, run as they are or refused with what moved, and no harm from a bad file."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.planfile import BadPlanFile, check_hashes, read_plan

RECIPE = """\
omr 1

seed = 3

source words from jsonl("words.jsonl")

source puzzles from synthetic("shapes", n = 30, seed = 1)

filter short from words { keep = len(question) < 100 }

mix questions from [short: all, puzzles: all]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a recipe, its data and its saved plan."""
    monkeypatch.chdir(tmp_path)
    write_words(20)
    (tmp_path / "a.omr").write_text(RECIPE)
    assert main(["plan", "a.omr", "--out", "a.omrplan", "--summary"]) == 0
    return tmp_path


def write_words(num: int) -> None:
    rows = ({"question": f"what is {n}?", "answer": str(n)} for n in range(num))
    Path("words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_file_holds_all_that_the_plan_was_made_of(folder: Path) -> None:
    with zipfile.ZipFile("a.omrplan") as file:
        assert file.namelist() == [
            "manifest.json", "plan.json", "resolved.json", "lock.json", "sources/0.omr",
        ]  # fmt: skip
        assert file.read("sources/0.omr").decode() == RECIPE
        resolved = json.loads(file.read("resolved.json"))
        lock = json.loads(file.read("lock.json"))
    assert {"name": "words", "path": "from", "layer": "file"}.items() <= resolved[1].items()
    assert [(pin["what"], pin["num_rows"]) for pin in lock] == [("words.jsonl", 20)]


def test_the_same_plan_has_the_same_bytes(folder: Path) -> None:
    first = Path("a.omrplan").read_bytes()
    assert main(["plan", "a.omr", "--out", "b.omrplan", "--summary"]) == 0
    assert Path("b.omrplan").read_bytes() == first


def test_a_saved_plan_shows_without_its_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["plan", "a.omr", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    Path("a.omr").unlink()
    for command in (["plan", "a.omrplan"], ["show", "a.omrplan"]):
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == plan
        assert main(command) == 0
        assert "Next: omr run a.omrplan" in capsys.readouterr().out


def test_it_runs_as_it_was_planned_and_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "a.omr", "--out", "b.omrplan", "--select", "words"]) == 0
    assert main(["run", "b.omrplan"]) == 0
    Path("a.omr").write_text(f"# a comment moves nothing\n{RECIPE}")
    capsys.readouterr()
    assert main(["run", "a.omrplan"]) == 0
    assert "3 stages executed" in capsys.readouterr().out, "words is done meanwhile"
    assert main(["run", "a.omrplan"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def moved(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a refused run says has moved."""
    capsys.readouterr()
    assert main(["run", "a.omrplan"]) == 4
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "error: a.omrplan is stale; plan again. What moved:"
    assert not Path(".omr/store").exists(), "nothing ran"
    return [line.strip() for line in rest]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("< 100", "< 50", "filter.short: keep len(question) < 100 -> len(question) < 50"),
        ("n = 30", "n = 40", "source.puzzles: from.n 30 -> 40"),
        ("filter short", "filter brief", "filter.short is gone"),
        ("seed = 3", "seed = 4", "source.words: seed 3 -> 4"),
    ],
)
def test_a_recipe_that_moved(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    text = RECIPE.replace(old, new).replace("[short", "[brief" if "brief" in new else "[short")
    Path("a.omr").write_text(text)
    assert told in moved(capsys)


def test_data_that_moved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_words(21)
    [told] = moved(capsys)
    assert told.startswith("words.jsonl changed: ")


def test_a_recipe_that_is_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.omr").unlink()
    capsys.readouterr()
    assert main(["run", "a.omrplan"]) == 4
    assert "a.omr cannot be read any more" in capsys.readouterr().err


def test_a_recipe_that_amends_one_of_another_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its paths start from that folder; its plan runs and its report is found under its own name all the same."""
    Path("studies").mkdir()
    Path("studies/b.omr").write_text(
        'amend "../a.omr"\nbecause "fewer puzzles"\n\npuzzles { take = 9 }\n'
    )
    assert main(["plan", "studies/b.omr", "--out", "b.omrplan", "--summary"]) == 0
    assert main(["run", "b.omrplan"]) == 0, capsys.readouterr().err
    assert main(["report", "studies/b.omr", "--out", "b.md", "--format", "markdown"]) == 0
    assert "studies/b.omr" in Path("b.md").read_text()
    Path("studies/b.omr").unlink()
    assert main(["run", "b.omrplan"]) == 4
    assert "b.omr cannot be read any more" in capsys.readouterr().err


def test_artifacts_that_are_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a.omr"]) == 0
    assert main(["plan", "a.omr", "--out", "a.omrplan", "--force", "questions"]) == 0
    shutil.rmtree(".omr")
    assert "source.words was there and is not any more: new" in moved(capsys)


def test_options_that_belong_to_the_plan(folder: Path) -> None:
    for option in (["--set", "seed=4"], ["--select", "words"], ["--force", "words"]):
        assert main(["run", "a.omrplan", *option]) == 64
    assert main(["plan", "a.omr", "--out", "a.zip"]) == 64
    Path("s.omr").write_text(RECIPE.replace("n = 30", "n = sweep(30, 40)"))
    assert main(["plan", "s.omr", "--out", "s.omrplan"]) == 64


def test_no_secret_is_in_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret")
    monkeypatch.setenv("TEACHER_URL", "http://inside.example/v1")
    Path("a.omr").write_text(
        RECIPE
        + """
use std.formats

model teacher = hf("some/model") { engine = openai(url = env("TEACHER_URL"), model = "m") }

sample traces from questions with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}
"""
    )
    assert main(["plan", "a.omr", "--out", "a.omrplan"]) == 0
    data = Path("a.omrplan").read_bytes()
    assert b"TEACHER_URL" in data
    assert b"sk-a-secret" not in data
    assert b"inside.example" not in data


# ---- files that are not what they say ------------------------------------------------------------


def members(path: str = "a.omrplan") -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return out.getvalue()


def refused(data: bytes, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said about such a file by each command that takes one; nothing else happens."""
    Path("bad.omrplan").write_bytes(data)
    before = sorted(str(path) for path in Path("..").rglob("*"))
    said = set()
    for command in ("plan", "show", "run"):
        capsys.readouterr()
        assert main([command, "bad.omrplan", *(["--state", "elsewhere"] * (command == "run"))]) == 1
        said.add(capsys.readouterr().err)
    shutil.rmtree("elsewhere")
    assert sorted(str(path) for path in Path("..").rglob("*")) == before
    [told] = said
    assert told.startswith("error: bad.omrplan ")
    return told


def test_bad_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path("a.omrplan").read_bytes()
    parts = members()
    assert "no plan file, or was cut short" in refused(b"", capsys)
    assert "no plan file, or was cut short" in refused(b"omr 1\n", capsys)
    assert "no plan file, or was cut short" in refused(whole[: len(whole) // 2], capsys)
    assert "a zip, but no plan file" in refused(zipped({"x": b""}), capsys)
    assert "a zip, but no plan file" in refused(zipped({**parts, "manifest.json": b"[]"}), capsys)
    other = {**parts, "plan.json": parts["plan.json"].replace(b"shapes", b"shades")}
    assert "plan.json is another" in refused(zipped(other), capsys)
    assert "its list of files is another" in refused(zipped({**parts, "../evil": b"x"}), capsys)
    newer = parts["manifest.json"].replace(b"omrplan 1", b"omrplan 9")
    assert "is written as `omrplan 9`" in refused(zipped({**parts, "manifest.json": newer}), capsys)


def test_every_cut_and_every_flipped_byte_is_told(folder: Path) -> None:
    whole = Path("a.omrplan").read_bytes()
    plan = read_plan(Path("a.omrplan"))
    for at in range(0, len(whole), 211):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :]):
            Path("bad.omrplan").write_bytes(data)
            try:
                assert read_plan(Path("bad.omrplan")) == plan, "a byte that means nothing"
            except BadPlanFile:
                continue


def test_a_plan_that_was_changed_with_its_hashes_is_not_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = members()
    plan = parts["plan.json"].replace(b'"n": 30', b'"n": 31')
    manifest = json.loads(parts["manifest.json"])
    manifest["sha256"]["plan.json"] = hashlib.sha256(plan).hexdigest()
    forged = {**parts, "plan.json": plan, "manifest.json": json.dumps(manifest).encode()}
    Path("bad.omrplan").write_bytes(zipped(forged))
    with pytest.raises(BadPlanFile, match="puzzles is not what its fingerprint says"):
        check_hashes(read_plan(Path("bad.omrplan")), Path("bad.omrplan"))
    assert main(["run", "bad.omrplan"]) == 1
    assert not Path(".omr/store").exists()
